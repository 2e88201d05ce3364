"""Decode segments of speech into hypotheses, resegment and score them, compare systems and report on them."""
