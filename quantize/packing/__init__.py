"""Write the packed model of a checkpoint, a tensor on each thread at a time."""
