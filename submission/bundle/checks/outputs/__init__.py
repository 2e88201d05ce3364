"""Checks of the outputs: lines, characters, segments and languages."""
