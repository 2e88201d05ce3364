"""The refusal of an option's value, which names the option, what is wrong and what to write instead."""

from __future__ import annotations


def require(condition: bool, message: str) -> None:
    """Raise ValueError with a message unless a condition holds."""
    if not condition:
        raise ValueError(message)
