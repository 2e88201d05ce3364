"""The SHAS classifier: model, training, and conversion of published checkpoints."""
