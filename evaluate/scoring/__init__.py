"""Score hypotheses against references: BLEU, chrF, TER, COMET, resegmentation, significance."""
