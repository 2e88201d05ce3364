"""A model on disk: its family, its codecs, its files, and its size before any of it exists."""
