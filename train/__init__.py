"""Corpora, LoRA fine-tuning and the merged checkpoint."""
