"""Rehearsals of packing at full size, from random weights and moments."""
