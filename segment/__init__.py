"""Segmentation of recordings: the SHAS classifier, divide-and-conquer, gap filling, and given segments."""
