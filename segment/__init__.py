"""Recordings in, segments out: the SHAS classifier, divide-and-conquer, and what organisers segmented themselves."""
