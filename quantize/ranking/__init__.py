"""Rank layers by the loss that a coarser codec costs in each."""
