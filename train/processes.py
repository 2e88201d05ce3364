"""Progress in the first of the launched processes, and values that all take from it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from accelerate.state import PartialState
from accelerate.utils import broadcast_object_list

from submission.progress import progress


def first_shows(label: str, total: float, unit: str) -> AbstractContextManager[Callable[[float], None]]:
    """Return `progress` in the first process, and a function that shows nothing in the others."""
    return progress(label, total, unit) if PartialState().is_main_process else nullcontext(lambda amount: None)


def first_decides(value: bool) -> bool:
    """Return the first process's value in every process, once all have called this."""
    values = [value]
    broadcast_object_list(values)
    return values[0]
