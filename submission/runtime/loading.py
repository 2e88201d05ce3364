"""Load a model folder, plain or packed, offline and in full; errors name what is missing or wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, ProcessorMixin
from transformers.utils import logging

from submission.errors import UserError
from submission.model.checkpoint import read_checkpoint
from submission.model.families import read_config
from submission.runtime.families import runtime_of
from submission.runtime.packed_loading import load_packed
from submission.runtime.quantizer import register
from submission.runtime.weight_form import free_bytes, prepare_weights
from submission.text.characters import printable

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# transformers makes an empty tokenizer, of no use, where the files of one are missing.
PROCESSOR_FILES = {
    "tokenizer": ("tokenizer.json", "vocab.json"),
    "feature extractor": ("processor_config.json", "preprocessor_config.json"),
}


def load_model(
    folder: Path, dtype: str | torch.dtype, device: str | torch.device = "cpu"
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Return (model in eval mode, processor) from a checkpoint or packed model.

    dtype: what the model computes in, "float32" or "bfloat16"; packed parts keep the dtypes of their file.
    Raises UserError naming tensors that are missing, left over or misshaped, and files that are not there.
    """
    return load_weights(folder, dtype, device), load_processor(folder)


def load_weights(folder: Path, dtype: str | torch.dtype, device: str | torch.device = "cpu") -> PreTrainedModel:
    """Return the model alone, in eval mode, of a folder that may have no processor; arguments as of `load_model`."""
    register()
    checkpoint = read_checkpoint(folder)
    wanted = DTYPES.get(dtype, dtype) if isinstance(dtype, str) else dtype
    if not isinstance(wanted, torch.dtype):
        raise UserError("dtype", f"unknown dtype {dtype!r}", f"known: {', '.join(DTYPES)}")
    if checkpoint.codecs:
        model: nn.Module = load_packed(checkpoint, wanted)
    else:
        with _without_bars():
            model = runtime_of(checkpoint.config).model_class.from_pretrained(
                folder, dtype=wanted, local_files_only=True, trust_remote_code=False
            )
    # Both kinds are on the CPU already, and `to` goes through every module to find that out.
    loaded = (model if torch.device(device).type == "cpu" else model.to(device)).eval()
    assert isinstance(loaded, PreTrainedModel)
    return loaded


def load_for_inference(
    folder: Path, dtype: str | torch.dtype, device: str | torch.device = "cpu"
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Return what `load_model` does, its weights in the form that its device decodes fastest with."""
    model, processor = load_model(folder, dtype, device)
    return prepare_weights(model, free_bytes(model.device)), processor


def load_processor(folder: Path) -> ProcessorMixin:
    """Return the processor (feature extractor and tokenizer) of a model folder; UserError where one is missing."""
    for kind, names in PROCESSOR_FILES.items():
        if not any((folder / name).is_file() for name in names):
            what = f"has no {kind} ({' or '.join(names)})"
            raise UserError(str(folder), what, "copy it from the model that this one was made from")
    read = runtime_of(read_config(folder)).read_processor
    try:
        return read(folder)
    except Exception as error:  # the tokenizers library raises nothing narrower for a file that is none of its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        what = f"its processor cannot be loaded ({printable(reason, 200)})"
        fix = "put tokenizer and feature extractor files beside the weights"
        raise UserError(str(folder), what, fix) from error


@contextmanager
def _without_bars() -> Iterator[None]:
    """Silence the library's bar for tensors read: they are mapped, which takes no time."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
