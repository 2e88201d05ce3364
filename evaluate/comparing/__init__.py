"""Compare outputs of two systems line by line and against references."""
