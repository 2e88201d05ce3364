"""Text files of the task: corpora, segments, mteval references, and the characters that outputs may hold."""
