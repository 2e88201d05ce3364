"""Checks of what a bundle says of itself: descriptions, scores, the model card, measured speed."""
