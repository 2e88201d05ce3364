"""Solvers: codes, scales and zero-points of one weight."""
