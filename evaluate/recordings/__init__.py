"""Translate a folder of recordings, and re-run a bundle on it."""
