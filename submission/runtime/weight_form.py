"""Choose how a packed model's weights lie in memory while it decodes: as plain weights, or as the stored codes.

Plain weights take four times the memory, and every product is the library's own. Codes take little more than the file
and need the device's kernel, or every step decodes every weight again. So on a GPU that holds them beside what
decoding itself takes, weights are decoded once; elsewhere codes stay codes, and the kernel is used after its
proof. On a processor codes are the faster form where there is a kernel; a small model without one becomes plain.
"""

from __future__ import annotations

import sys

import torch
from transformers import PreTrainedModel

from submission.model.sizes import GIB
from submission.runtime.packed import plain_bytes, prepack_linears

SMALL_BYTES = 256 << 20
"""Up to this size packed layers may become plain ones, since memory does not matter."""
DECODING_BYTES = 8 << 30
"""What decoding takes on a GPU besides the weights: keys and values of a batch of 288 s of audio in 32 layers of 4096
are 6 GiB, and there are activations and the library's own."""


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory of a GPU; None for a processor, of whose memory nothing is to be chosen."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else None


def has_room(plain: int, free: int | None) -> bool:
    """Return whether a GPU with so many free bytes holds so many of plain weights and decodes with them."""
    return free is not None and plain + DECODING_BYTES <= free


def prepare_weights(model: PreTrainedModel, free: int | None) -> PreTrainedModel:
    """Return a loaded model with its weights in the form in which it decodes; on a GPU the choice is printed.

    free: as `free_bytes` of the model's device returns it.
    """
    plain = plain_bytes(model)
    if not plain:
        return model
    if has_room(plain, free):
        _tell(f"weights decoded once, {_gib(plain)} GiB beside {_gib(DECODING_BYTES)} for decoding", free)
        return _plain(model)
    prepacked = prepack_linears(model)
    if free is not None:
        kept = f"codes stay packed, since {_gib(plain)} GiB of plain weights leave too little for decoding"
        slow = "" if prepacked else "; no kernel passed its proof here, so that every step decodes them: expect it slow"
        _tell(f"{kept}{slow}", free)
    if not prepacked and plain <= SMALL_BYTES:
        return _plain(model)
    return model


def _plain(model: PreTrainedModel) -> PreTrainedModel:
    decoded = model.dequantize()
    assert isinstance(decoded, PreTrainedModel)
    return decoded


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}"


def _tell(choice: str, free: int | None) -> None:
    assert free is not None  # a choice is printed for GPUs alone
    print(f"decoding: {choice} ({_gib(free)} GiB free)", file=sys.stderr, flush=True)
