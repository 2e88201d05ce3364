"""Decode segments of speech into hypotheses, with fallbacks for failed segments."""
