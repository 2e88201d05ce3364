"""Checks of names, kinds, sizes and digests of the files in a bundle, and of its manifest."""
