"""The embedded default: a tiny real Qwen2-Audio, its language and its voice."""
