"""Pack a checkpoint, a tensor on each thread at a time: the whole model is never in memory.

Every tensor's place in the new file is known before the first byte is read, since it follows from shapes alone
(`submission.model.forecast`). So tensors are read in the order in which they lie on the disk, and each is written to
its place at once. A tensor is packed or kept as it is; one that can be neither is refused before the first is written.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from quantize.artifact_files import PACKING_REPORT
from quantize.calibration.folding import Folding
from quantize.packing.weights_at_once import each_weight
from quantize.packing.weights_file import WeightsFile, open_weights
from quantize.solvers.blocks import all_finite
from quantize.solvers.bound import SideData, SolveFor, bind_solver, need_served
from submission.errors import UserError
from submission.model.checkpoint import (
    INDEX,
    WEIGHTS,
    Checkpoint,
    Located,
    config_text,
    packed_config,
    read_checkpoint,
    weight_files,
)
from submission.model.codecs import Codec, codec_parts
from submission.model.codecs.dtypes import torch_dtype
from submission.model.families import stored_dtype, tensors, without_parts
from submission.model.families.tensors import TensorSpec
from submission.model.forecast import companion_files, stored_parts
from submission.model.safetensors_header import file_bytes, tensor_bytes
from submission.progress import progress
from submission.store.digests import canonical_json, write_text

JOURNAL = "packed.jsonl"
"""Beside the model while it is packed: which weights are done."""

CACHE_ELEMENTS = 1 << 18
"""Weights that are compared at a time, so that intermediate results stay in a core's cache."""


def pack_system(
    folder: Path,
    out: Path,
    codecs: dict[str, Codec],
    solver: str,
    folding: Folding | None = None,
    side_data: SideData | None = None,
    drop: Sequence[str] = (),
) -> None:
    """Fill `out` with what the stage quantize makes of a checkpoint: model/ and packing_report.json.

    Arguments are as for `pack_checkpoint`, which raises UserError. Resumes in the `out` of a killed run.
    """
    model, journal = out / "model", out / JOURNAL
    model.mkdir(exist_ok=True)
    report = pack_checkpoint(
        folder, model, codecs, solver=solver, folding=folding, side_data=side_data, drop=drop, journal=journal
    )
    write_text(out / PACKING_REPORT, canonical_json(report))
    journal.unlink(missing_ok=True)


def pack_checkpoint(
    folder: Path,
    out: Path,
    codecs: dict[str, Codec],
    *,
    solver: str,
    folding: Folding | None = None,
    side_data: SideData | None = None,
    drop: Sequence[str] = (),
    journal: Path | None = None,
) -> dict[str, Any]:
    """Write the packed model of a checkpoint into the folder `out` and return the report.

    codecs: weight name on the hub -> codec, as `resolve_codecs` gives them; every other tensor is kept as it is.
    folding: scales of channels that are folded into the weights before. side_data: what a solver needs of each weight
    beyond its numbers. journal: a file that notes each packed weight that is on the disk, so that a killed run, started
    again with the same arguments, resumes after it. drop: parts of the model that are left out.
    The report has codec, bytes and relative squared error of each packed weight, what was kept, which files were
    copied, and which were left out. The same arguments give the same bytes.
    Raises UserError for a checkpoint that is incomplete, packed already, or holds numbers that are not finite, and for
    codecs whose size is not known or that the solver does not serve.
    """
    checkpoint = read_checkpoint(folder)
    if checkpoint.codecs:
        raise UserError(str(folder), "is packed already", "name the checkpoint at full precision")
    config = without_parts(checkpoint.config, drop)
    specs, solve_for = tensors(config), bind_solver(solver, side_data)
    need_served(solver, codecs)
    _refuse_other_dtypes(checkpoint, specs, codecs)
    stored = {
        name: part
        for spec in specs
        for name, part in stored_parts(spec, codecs.get(spec.name), checkpoint.located[spec.name].dtype).items()
    }
    with open_weights(out / WEIGHTS, stored, journal) as target:
        _write_tensors(target, checkpoint, specs, codecs, solve_for, folding)
    write_text(out / "config.json", config_text(packed_config(config, codecs)))
    files = _copy_companions(folder, out)
    kept = [spec for spec in specs if spec.name not in codecs]
    return {
        "solver": solver,
        "packed": {name: target.report[name] for name in sorted(target.report)},
        "kept": {"tensors": len(kept), "bytes": sum(tensor_bytes(*stored[spec.name]) for spec in kept)},
        "parameters": sum(math.prod(spec.shape) for spec in specs),
        "weights_bytes": file_bytes(stored),
        "total_bytes": sum(path.stat().st_size for path in out.iterdir()),
        **files,
    }


def _copy_companions(folder: Path, out: Path) -> dict[str, list[str]]:
    """Copy the files beside a checkpoint's weights that its packed model needs; return these names and the others'."""
    copied = companion_files(folder)
    for path in copied:
        shutil.copyfile(path, out / path.name)
    known = {"config.json", INDEX, *(p.name for p in weight_files(folder)), *(p.name for p in copied)}
    others = sorted(path.name for path in folder.iterdir() if path.name not in known)
    return {"copied": [path.name for path in copied], "left_out": others}


def _refuse_other_dtypes(checkpoint: Checkpoint, specs: list[TensorSpec], codecs: dict[str, Codec]) -> None:
    """Raise UserError where a tensor that is kept as it is has another dtype than the configuration says."""
    expected = stored_dtype(checkpoint.config)
    for spec in specs:
        found = checkpoint.located[spec.name].dtype
        if spec.name not in codecs and found != expected:
            what = f"{spec.name} is kept as it is, in {found}, and config.json says {expected}"
            raise UserError(
                str(checkpoint.folder), what, "store all tensors in one dtype, so that sizes are known before"
            )


def _write_tensors(
    target: WeightsFile,
    checkpoint: Checkpoint,
    specs: list[TensorSpec],
    codecs: dict[str, Codec],
    solve_for: SolveFor,
    folding: Folding | None,
) -> None:
    """Write every tensor to its place, in the order in which they lie on the disk, several at once."""
    on_disk = sorted(specs, key=lambda spec: _place(checkpoint.located[spec.name]))
    writing = Lock()

    def write_tensor(spec: TensorSpec) -> None:
        """Read one tensor and write it, packed or as it is; by itself, so that its memory is free before the next."""
        name, codec = spec.name, codecs.get(spec.name)
        tensor = read_tensor(checkpoint.located[name], name)
        if folding is not None:
            tensor = folding.fold(name, tensor)
        parts = {name: tensor} if codec is None else encode(name, tensor, codec, solve_for)
        entry = None if codec is None else _describe(tensor, codec, name, parts)
        with writing:
            target.write(parts)
            if entry is not None:
                target.note(name, entry)

    with progress("quantize", sum(map(_elements, specs)) / 1e6, "M parameters") as tick:
        tick(sum(_elements(spec) for spec in specs if spec.name in target.report) / 1e6)
        left = [spec for spec in on_disk if spec.name not in target.report]
        each_weight(write_tensor, left, _elements, lambda spec: tick(_elements(spec) / 1e6))


def _elements(spec: TensorSpec) -> int:
    return math.prod(spec.shape)


def _place(located: Located) -> tuple[str, int]:
    return located.path.name, located.offset


def read_tensor(located: Located, name: str) -> torch.Tensor:
    """Return one tensor of a checkpoint in its own dtype; UserError where a number in it is not finite."""
    data = bytearray(tensor_bytes(located.dtype, located.shape))
    with located.path.open("rb") as file:
        file.seek(located.offset)
        file.readinto(data)
    tensor = torch.frombuffer(data, dtype=torch_dtype(located.dtype)).view(located.shape)
    if not all_finite(tensor):
        what = f"{int((~torch.isfinite(tensor)).sum())} numbers are not finite"
        raise UserError(f"{located.path}: {name}", what, "the model is damaged: fetch or train it again")
    return tensor


def encode(name: str, weight: torch.Tensor, codec: Codec, solve_for: SolveFor) -> dict[str, torch.Tensor]:
    """Return stored name -> tensor of a weight, float [rows, columns]; UserError where the codec cannot store it."""
    declared = codec_parts(name, codec, tuple(weight.shape))
    try:
        parts = codec.encode(weight, solve_for(name, codec))
    except ValueError as error:
        what, _, fix = str(error).partition("; ")
        raise UserError(name, what, fix) from error
    # Offsets in the file follow from what is declared: a part of another size would overwrite the next tensor.
    expected = {suffix: (torch_dtype(dtype), torch.Size(shape)) for suffix, (dtype, shape) in declared.items()}
    encoded = {suffix: (part.dtype, part.shape) for suffix, part in parts.items()}
    assert encoded == expected, f"{codec.name} stores {encoded} of {name}, and declares {expected}"
    return {f"{name}.{suffix}": part for suffix, part in parts.items()}


def _describe(weight: torch.Tensor, codec: Codec, name: str, parts: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Return codec, bytes and relative squared error of a packed weight, measured on what is stored."""
    error = power = 0.0
    by_suffix = {stored.removeprefix(f"{name}."): part for stored, part in parts.items()}
    for rows, restored in codec.blocks(by_suffix, tuple(weight.shape), torch.float32, CACHE_ELEMENTS):
        original = weight[rows].float()
        error += _squares(restored - original)
        power += _squares(original)
    return {
        "codec": codec.name,
        "bytes": sum(part.nbytes for part in parts.values()),
        "relative_mse": float(f"{error / power:.6g}") if power else 0.0,
    }


def _squares(block: torch.Tensor) -> float:
    """Return the sum of squares of a block small enough for float32 to add up."""
    return float(block.view(-1).dot(block.view(-1)))
