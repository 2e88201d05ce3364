"""Solvers: which codes and scales stand for a weight."""
