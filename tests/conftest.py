"""What every test shares: reproducible property tests, and no deadline that a loaded machine can miss."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("project", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("project")
