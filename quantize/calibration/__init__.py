"""Calibration: what a model's weights take in and how much their outputs matter, measured on text or speech."""
