"""What a model is made of on disk: checkpoints, sizes, families and codecs."""
