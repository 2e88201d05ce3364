"""What a bundle needs to run: audio in, prompts, packed layers, loading. Needs torch and transformers.

Importing `submission.runtime` makes stock `from_pretrained` load packed models.
"""

from __future__ import annotations

from submission.runtime.quantizer import register

register()
