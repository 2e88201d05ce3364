"""Write the packed model of a checkpoint, one tensor at a time."""
