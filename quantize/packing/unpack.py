"""Write the plain checkpoint that a packed model stands for, tensor by tensor, for tools that know nothing of codecs.

Decoding is exact arithmetic in float32 and one rounding to the stored dtype, so every machine writes the same bytes.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from quantize.packing.pack import CACHE_ELEMENTS, read_tensor
from quantize.packing.weights_file import WeightsFile, open_weights
from submission.bundle.checks import exit_status, verify
from submission.bundle.manifest import NAME as MANIFEST
from submission.errors import UserError
from submission.model.checkpoint import WEIGHTS, Checkpoint, config_text, plain_config, read_checkpoint
from submission.model.codecs import Codec
from submission.model.codecs.dtypes import torch_dtype
from submission.model.families import stored_dtype, tensors
from submission.model.families.tensors import TensorSpec
from submission.model.forecast import companion_files
from submission.progress import progress
from submission.store.digests import write_text


def unpack(folder: Path, out: Path, campaign: str | None = None) -> int:
    """Write the checkpoint of a packed model's folder, or of the bundle that holds one, into the new folder `out`.

    The weights are one file in the dtype that `config.json` says, bf16 as a rule; tokenizer and processor files are
    copied. Memory: the largest packed weight and a block of rows. A run that ends early leaves `out` as it was.
    Returns the bytes of `out`. Raises UserError for a bundle that has errors, a folder that is no packed model, damaged
    parts, and an `out` that is there already.
    """
    is_bundle = (folder / MANIFEST).is_file()
    if is_bundle and exit_status(verify(folder, campaign)):
        fix = f"run `python -m submission verify {folder}` and fix what it reports"
        raise UserError(f"bundle {folder}", "has errors and is not unpacked", fix)
    model = folder / "model" if is_bundle else folder
    checkpoint = read_checkpoint(model)
    if not checkpoint.codecs:
        raise UserError(str(model), "is not packed", "use it as it is")
    if out.exists():
        raise UserError(str(out), "is there already", "name a folder that is not there yet")
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write_weights(partial / WEIGHTS, checkpoint)
    write_text(partial / "config.json", config_text(plain_config(checkpoint.config)))
    for path in companion_files(model):
        shutil.copyfile(path, partial / path.name)
    partial.replace(out)
    return sum(path.stat().st_size for path in out.iterdir())


def _write_weights(path: Path, checkpoint: Checkpoint) -> None:
    specs, dtype = tensors(checkpoint.config), stored_dtype(checkpoint.config)
    stored = {spec.name: (dtype, spec.shape) for spec in specs}
    parameters = sum(math.prod(spec.shape) for spec in specs)
    with open_weights(path, stored, None) as target, progress("unpack", parameters / 1e6, "M parameters") as tick:
        for spec in specs:
            codec = checkpoint.codecs.get(spec.name)
            if codec is None:
                target.write({spec.name: read_tensor(checkpoint.located[spec.name], spec.name)})
            else:
                _write_decoded(target, checkpoint, spec, codec, torch_dtype(dtype))
            tick(math.prod(spec.shape) / 1e6)


def _write_decoded(
    target: WeightsFile, checkpoint: Checkpoint, spec: TensorSpec, codec: Codec, dtype: torch.dtype
) -> None:
    """Write one packed weight; by itself, so that its parts are freed before the next is read."""
    parts = {
        suffix: read_tensor(checkpoint.located[f"{spec.name}.{suffix}"], f"{spec.name}.{suffix}")
        for suffix in codec.parts(spec.shape)
    }
    target.write_rows(spec.name, _decoded_rows(parts, spec, codec, dtype))


def _decoded_rows(
    parts: Mapping[str, torch.Tensor], spec: TensorSpec, codec: Codec, dtype: torch.dtype
) -> Iterator[torch.Tensor]:
    """Yield a packed weight in blocks of rows, in order; UserError where its parts are damaged."""
    try:
        codec.check(parts, spec.shape)
        for _, rows in codec.blocks(parts, spec.shape, dtype, CACHE_ELEMENTS):
            yield rows
    except ValueError as error:
        part, _, what = str(error).partition(": ")
        raise UserError(f"packed model: {spec.name}.{part}", what, "fetch or pack the model again") from error
