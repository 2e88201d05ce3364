"""Calibration: what a model's weights take in and how much their outputs matter; AWQ's scales of channels."""
