"""WEI08: whether floating-point tensors of model and classifier are finite, by their exponents.

The exponent lies in the last byte of a little-endian number, so one byte of each number is looked at. Of bfloat16 and
float32 that byte has seven of its eight bits: what is refused begins at 2**127, which no weight comes near.
"""

from __future__ import annotations

from collections.abc import Iterator

from submission.bundle.checks.finding import Fault
from submission.bundle.manifest import SEGMENTER
from submission.bundle.untrusted.bundle_view import BundleView
from submission.bundle.untrusted.folder import MOST_JSON_BYTES
from submission.bundle.untrusted.strict_json import Unreadable
from submission.bundle.untrusted.tensor_header import read_header
from submission.model.safetensors_header import BadHeader, SafetensorsHeader
from submission.text.characters import printable

HALF = bytes((*range(0x7C, 0x80), *range(0xFC, 0x100)))
SINGLE = b"\x7f\xff"
LARGE: dict[str, tuple[int, bytes]] = {"F16": (2, HALF), "BF16": (2, SINGLE), "F32": (4, SINGLE)}
"""Dtype -> bytes of a number, and last bytes of those that are not finite (or beyond 2**127)."""
MOST_BYTES = 2 << 30
"""So much is looked at: four times what a packed model of 8 B parameters keeps in floating point."""
MOST_SHOWN = 5
CLASSIFIER = f"{SEGMENTER}/model.safetensors"


def not_finite(view: BundleView) -> Iterator[Fault]:
    """Pack the model again with `quantize`, or copy the classifier again: what such numbers touch is no number either,
    and the model would say nothing.
    """
    left = MOST_BYTES
    for path, header in _headers(view):
        wrong = []
        for name, info in sorted(header.tensors.items()):
            size = info.end - info.begin
            if info.dtype in LARGE and size <= left:
                left -= size
                if _has_large(view, path, header.data_offset + info.begin, size, info.dtype):
                    wrong.append(name)
        for name in wrong[:MOST_SHOWN]:
            yield printable(path), f"'{printable(name)}' holds numbers that are not finite"
        if len(wrong) > MOST_SHOWN:
            yield printable(path), f"{len(wrong) - MOST_SHOWN:,} more tensors hold numbers that are not finite"


def _headers(view: BundleView) -> Iterator[tuple[str, SafetensorsHeader]]:
    """Yield the safetensors files of model and classifier that can be read and are within the budget."""
    for path, header in view.headers.items():
        if isinstance(header, SafetensorsHeader) and path not in view.beyond_budget:
            yield path, header
    if CLASSIFIER in view.files and CLASSIFIER not in view.beyond_budget:
        try:
            yield CLASSIFIER, read_header(view, CLASSIFIER, MOST_JSON_BYTES)
        except BadHeader:
            return  # reported as SEG03


def _has_large(view: BundleView, path: str, begin: int, size: int, dtype: str) -> bool:
    """Return whether a tensor holds a number that is not finite; False where it cannot be read."""
    width, large = LARGE[dtype]
    try:
        for chunk in view.chunks(path, begin=begin, end=begin + size):
            last = chunk[width - 1 :: width]
            if len(last.translate(None, large)) < len(last):
                return True
    except Unreadable:
        return False  # reported as FILE07
    return False
