"""Codecs: how one weight is stored."""
