"""Products of activations with weights that stay codes in memory."""
