"""Training corpora: formats, sampling, and the stage that writes corpus.jsonl."""
