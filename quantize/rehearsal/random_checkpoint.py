"""Make a checkpoint of a configuration's shapes with random weights, at the size of a real model.

The weights are Gaussian with a standard deviation of 0.02, as trained ones have, and one in ten thousand is an outlier.
They come from one block that is drawn once and repeated over every tensor from an offset of the tensor's own: drawing
8.4 billion numbers would take longer than packing them. The block's length is a prime, so that the groups of a tensor
begin at different offsets, and no two of up to `BLOCK_LENGTH` groups are the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from submission.errors import UserError
from submission.model.checkpoint import INDEX
from submission.model.families import family_of, stored_dtype, tensors
from submission.model.families.tensors import TensorSpec
from submission.model.safetensors_header import file_bytes, header_bytes, lay_out, read_header, tensor_bytes
from submission.progress import progress
from submission.store.digests import ASIDE, canonical_json, remove_leftovers, write_text

SEED = 0
BLOCK_LENGTH = 16_777_259
"""Weights that are drawn: the first prime above 2 ** 24."""
SIGMA = 0.02
OUTLIER_SHARE = 1e-4
OUTLIER_FACTOR = 10

SHARD_BYTES = 4 << 30
"""Most bytes of tensors in a shard, as long as no single one has more."""
DTYPE = "BF16"


def with_layers(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """Return a configuration whose stacks have so many layers; UserError for none or too many."""
    most = len({spec.layer for spec in tensors(config)} - {None})
    if not 1 <= layers <= most:
        raise UserError("--layers", f"expected 1 to {most}, got {layers}", "leave it out for the whole model")
    return family_of(config).with_layers(config, layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file of a checkpoint that is to be made."""

    name: str
    specs: tuple[TensorSpec, ...]

    @property
    def layout(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Name -> (dtype, shape) of its tensors."""
        return {spec.name: (DTYPE, spec.shape) for spec in self.specs}


def plan_shards(config: dict[str, Any], shard_bytes: int = SHARD_BYTES) -> list[Shard]:
    """Return the files of a checkpoint, each of at most shard_bytes of tensors or of one tensor, in the model's order.

    Named as on the hub, `model-00001-of-00005.safetensors`.
    """
    pieces: list[list[TensorSpec]] = [[]]
    left = shard_bytes
    for spec in tensors(config):
        size = tensor_bytes(DTYPE, spec.shape)
        if pieces[-1] and size > left:
            pieces.append([])
            left = shard_bytes
        pieces[-1].append(spec)
        left -= size
    return [
        Shard(name=f"model-{number:05d}-of-{len(pieces):05d}.safetensors", specs=tuple(specs))
        for number, specs in enumerate(pieces, start=1)
    ]


def make_checkpoint(folder: Path, config: dict[str, Any], *, shard_bytes: int = SHARD_BYTES) -> dict[str, Any]:
    """Fill a folder with a checkpoint of random weights in bfloat16; return its bytes, shards and the seconds taken.

    Norms are ones. Shards that are there already stay, others go; the same arguments give the same bytes. No more than
    the block is in memory.
    """
    assert stored_dtype(config) == DTYPE, f"weights are made in {DTYPE}"
    started = time.perf_counter()
    shards = plan_shards(config, shard_bytes)
    _prepare(folder, {shard.name for shard in shards})
    block = draw_block()
    found = 0
    total = sum(file_bytes(shard.layout) for shard in shards)
    with progress("random checkpoint", total / 1e6, "MB") as tick:
        for shard in shards:
            if is_made(folder / shard.name, shard):
                found += 1
            else:
                _write_shard(folder / shard.name, shard, block)
            tick(file_bytes(shard.layout) / 1e6)
    names = {spec.name: shard.name for shard in shards for spec in shard.specs}
    data_bytes = sum(tensor_bytes(*part) for shard in shards for part in shard.layout.values())
    write_text(folder / INDEX, canonical_json({"metadata": {"total_size": data_bytes}, "weight_map": names}))
    write_text(folder / "config.json", canonical_json(config))
    seconds = round(time.perf_counter() - started, 1)
    return {"bytes": total, "shards": len(shards), "shards_found": found, "seconds": seconds}


def _prepare(folder: Path, names: set[str]) -> None:
    """Make the folder, and remove shards of other names and unfinished files."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    for path in folder.glob("model-*.safetensors"):
        if path.name not in names:
            path.unlink()


def is_made(path: Path, shard: Shard) -> bool:
    """Return whether a shard is complete; it is renamed into place when it is, so its header shows it."""
    if not path.is_file() or path.stat().st_size != file_bytes(shard.layout):
        return False
    try:
        return read_header(path).tensors == lay_out(shard.layout)
    except UserError:  # of this size, and no safetensors file: make it again
        return False


def draw_block() -> np.ndarray:
    """Return uint16 [BLOCK_LENGTH], the bits of bfloat16 numbers: Gaussian, with a few outliers."""
    generator = np.random.default_rng(SEED)
    values = generator.standard_normal(BLOCK_LENGTH, dtype=np.float32)
    values *= SIGMA
    positions = generator.integers(0, BLOCK_LENGTH, round(BLOCK_LENGTH * OUTLIER_SHARE))
    values[positions] *= OUTLIER_FACTOR
    return (values.view(np.uint32) >> 16).astype(np.uint16)  # rounded towards zero


def _write_shard(path: Path, shard: Shard, block: np.ndarray) -> None:
    aside = path.with_name(f".{path.name}{ASIDE}")
    specs = {spec.name: spec for spec in shard.specs}
    with aside.open("wb") as file:
        file.write(header_bytes(shard.layout))
        for name in lay_out(shard.layout):
            for piece in weights(specs[name], block):
                file.write(piece.data)
    os.replace(aside, path)


def weights(spec: TensorSpec, block: np.ndarray) -> Iterator[np.ndarray]:
    """Yield a tensor's numbers, uint16, in their order: pieces of the block, or ones for a norm."""
    count = int(np.prod(spec.shape))
    if spec.role.endswith("norm") and spec.name.endswith(".weight"):
        yield np.full(count, 0x3F80, dtype=np.uint16)
        return
    start = int(np.random.default_rng([SEED, *spec.name.encode()]).integers(len(block)))
    while count:
        piece = block[start : start + count]
        yield piece
        start, count = 0, count - len(piece)


def left_to_make(folder: Path, config: dict[str, Any]) -> int:
    """Return the bytes of the shards that `make_checkpoint` would still write."""
    shards = plan_shards(config)
    return sum(file_bytes(shard.layout) for shard in shards if not is_made(folder / shard.name, shard))
