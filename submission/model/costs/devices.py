"""What a step runs on: graphics cards by their data sheets, a processor by what its cores usually reach."""

from __future__ import annotations

from dataclasses import dataclass

from submission.counting import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a step runs on."""

    name: str
    flops_per_second: float
    """Stated peak of dense bf16 for a card, what a large product reaches for a processor."""
    bytes_per_second: float
    """Of its memory, stated or reached alike."""
    memory_bytes: int
    is_card: bool


CARDS = (
    Device(name="24 GB card", flops_per_second=125e12, bytes_per_second=0.6e12, memory_bytes=24 * 10**9, is_card=True),
    Device(name="80 GB card", flops_per_second=312e12, bytes_per_second=2.0e12, memory_bytes=80 * 10**9, is_card=True),
)
"""By the data sheets of NVIDIA's A10 and A100."""
CORE_FLOPS, CORE_BYTES = 30e9, 10e9
"""Of one core of a server's processor: operations in bfloat16 and bytes of memory per second."""


def processor(cores: int, memory_bytes: int, flops: float | None = None, bandwidth: float | None = None) -> Device:
    """Return a processor as a device; flops, bandwidth: measured on it, None for what such cores usually reach."""
    return Device(
        name=f"processor, {counted(cores, 'core')}",
        flops_per_second=flops or cores * CORE_FLOPS,
        bytes_per_second=bandwidth or cores * CORE_BYTES,
        memory_bytes=memory_bytes,
        is_card=False,
    )
