"""Make a checkpoint small: a codec for every weight, codes by a solver, packed to the bit, streamed to disk."""
