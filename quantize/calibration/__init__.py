"""AWQ: activation statistics, scale search, and folding of channel scales."""
