"""Text files of the task: corpora, segments, test sets, and the characters that outputs may hold."""
