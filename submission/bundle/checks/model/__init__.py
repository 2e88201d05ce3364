"""Checks of the model and the segmentation classifier: configuration, tokenizer, weights."""
