"""Segmentation methods: how a recording's frame probabilities become segments."""
