"""Values that all launched processes take from the first one."""

from __future__ import annotations

from accelerate.utils import broadcast_object_list


def first_decides(value: bool) -> bool:
    """Return the first process's value in every process, once all have called this."""
    values = [value]
    broadcast_object_list(values)
    return values[0]
