"""Frame probabilities of speech: by the SHAS classifier and by a voice-activity detector."""
