"""What every test shares: reproducible property tests without deadlines, and thread variables that a test leaves as
they were: a process started by a later test takes its number of threads from them, and its bytes depend on that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("project", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("project")


@pytest.fixture(autouse=True)
def thread_variables() -> Iterator[None]:
    """Restore OMP_NUM_THREADS and OMP_WAIT_POLICY, which every command sets that runs in the tests' own process."""
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
