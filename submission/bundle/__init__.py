"""The bundle that is uploaded: its files, its manifest and description, its checks, its archive."""
