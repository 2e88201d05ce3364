"""Speed and memory of fine-tuning."""
