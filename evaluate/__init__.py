"""From segments of speech to hypotheses, and from hypotheses to honest figures: decode, resegment, score."""
