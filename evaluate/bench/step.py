"""Time a step through a decoder layer's linears: packed codes against bfloat16 weights.

This is the work of a step of generation, or of a prompt, at the full model's shapes: as many rows of activations as
hypotheses take the step together, or as a prompt has tokens. The linears of both models are larger than a processor's
cache, so weights come from memory, as they do in a step through the whole model.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from evaluate.bench.full_size import full_size_config
from submission.model.codecs.affine import Affine
from submission.model.families import tensors
from submission.runtime.packed import PackedLinear, PackedTensor, prepack_linears
from submission.runtime.products.block_products import kernel_rows
from submission.runtime.products.byte_tiles import tiles_pass_proof
from submission.runtime.products.processor import product_dtype
from submission.runtime.products.random_codes import random_codes

ENTROPY = "entropy"

BARS = {1: 1.0, 8: 1.0, 32: 1.0, 256: 0.8}
"""Rows of activations -> how many times as fast as `F.linear` in bfloat16 packed weights must be."""
MORE: dict[int | str, dict[int, float]] = {4: {1: 3.0}, 3: {1: 3.0}, 2: {1: 3.0}, ENTROPY: {1: 2.4}}
"""Kind -> the same, where it is more."""

DTYPE = torch.bfloat16
WARM_UP = 3
MOST_ROWS_IN_ALL = 480
"""Rows times runs: long inputs are timed a few times only."""
LEAST_RUNS = 3
DEQUANTIZED_RUNS = 3
"""Of weights that are dequantized for each call, which is so slow that few runs suffice."""

Layers = dict[str, Sequence[Callable[[torch.Tensor], torch.Tensor]]]
"""Way of computing -> the linears."""


def bench_step(
    shapes: Sequence[tuple[int, int]] | None = None,
    *,
    kinds: Sequence[int | str] = (4, 3, 2, 8, ENTROPY),
    group_size: int = 128,
    rows: Sequence[int] = tuple(BARS),
    runs: int = 15,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the milliseconds of a layer's linears on the CPU, and how many times as fast the packed ones are.

    shapes: [rows, columns] of each weight; None for those of a decoder layer of the campaign's model. kinds: bits of
    codes, and `entropy` for the 8-bit codes that entropy-coded weights become. rows: of activations. Weights and codes
    are random, and time depends on neither. `bfloat16`, `packed` and for codes of a fixed width `dequantized`, the
    packed ones without a kernel, run in turn; times are medians, ratios medians of neighbours. `processor_ratio` is of
    the process's processor time, which a busy machine stretches less.
    """
    generator = torch.Generator().manual_seed(seed)
    shapes = layer_shapes() if shapes is None else list(shapes)
    plain = [_plain(shape, generator) for shape in shapes]
    record: dict[str, Any] = {
        "shapes": shapes,
        "group_size": group_size,
        "runs": runs,
        "threads": torch.get_num_threads(),
        "ways": _ways(),
        "kinds": {},
    }
    for kind in kinds:
        layers: Layers = {"bfloat16": plain}
        if isinstance(kind, int):
            codec = Affine(bits=kind, group_size=group_size)
            packed = nn.ModuleList(_packed(codec, shape, generator) for shape in shapes)
            prepack_linears(packed)
            layers["packed"] = list(packed)
            layers["dequantized"] = [_packed(codec, shape, generator) for shape in shapes]
        else:
            layers["packed"] = [random_codes(shape, generator).multiply for shape in shapes]
        bars = BARS | MORE.get(kind, {})
        record["kinds"][str(kind)] = {
            str(count): _judged(_measure(layers, shapes, count, runs, generator), bars.get(count)) for count in rows
        }
    return record


def _ways() -> str:
    """Return how this processor multiplies with codes, for a person."""
    if tiles_pass_proof():
        return "dot products of bfloat16 pairs"
    dtype = str(product_dtype()).removeprefix("torch.")
    most = f"{kernel_rows(4)} rows of 4-bit and {kernel_rows(8)} of 8-bit codes"
    return f"torch's kernels up to {most}, then blocks in {dtype}"


def _judged(figures: dict[str, Any], bar: float | None) -> dict[str, Any]:
    return figures | {"bar": bar, "passed": bar is None or figures["ratio"] >= bar}


def layer_shapes() -> list[tuple[int, int]]:
    """Return the shapes of the linears of one decoder layer of the campaign's model."""
    specs = [spec for spec in tensors(full_size_config()) if spec.layer == 0 and not spec.role.startswith("audio")]
    return [spec.shape for spec in specs if len(spec.shape) == 2]


@torch.inference_mode()
def _measure(
    layers: Layers, shapes: Sequence[tuple[int, int]], count: int, runs: int, generator: torch.Generator
) -> dict[str, Any]:
    inputs = [torch.randn(count, columns, generator=generator).to(DTYPE) for _, columns in shapes]
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in layers}
    runs = max(min(runs, LEAST_RUNS), min(runs, MOST_ROWS_IN_ALL // count))
    warm_up = max(1, min(WARM_UP, runs // LEAST_RUNS))
    for run in range(warm_up + runs):
        for name, parts in layers.items():
            if name == "dequantized" and run >= warm_up + DEQUANTIZED_RUNS:
                continue
            started, worked = time.perf_counter(), time.process_time()
            for part, given in zip(parts, inputs, strict=True):
                part(given)
            if run >= warm_up:
                taken[name].append((time.perf_counter() - started, time.process_time() - worked))
    pairs = list(zip(taken["bfloat16"], taken["packed"], strict=True))
    medians = {f"{name}_ms": round(statistics.median(1e3 * wall for wall, _ in of), 3) for name, of in taken.items()}
    ratios = [round(statistics.median(plain[i] / packed[i] for plain, packed in pairs), 2) for i in range(2)]
    return medians | {"ratio": ratios[0], "processor_ratio": ratios[1]}


def _plain(shape: tuple[int, int], generator: torch.Generator) -> nn.Linear:
    linear = nn.Linear(shape[1], shape[0], bias=False, dtype=DTYPE)
    linear.weight.data.copy_(torch.randn(shape, generator=generator) * 0.02)
    return linear


def _packed(codec: Affine, shape: tuple[int, int], generator: torch.Generator) -> PackedLinear:
    weight = PackedTensor(codec, shape, dtype=DTYPE, device="cpu")
    for part in weight.parts.values():
        if part.dtype == torch.uint8:
            part.random_(0, 256, generator=generator)
        else:
            part.uniform_(0.5, 1.5, generator=generator)
    return PackedLinear(weight, None)


def step_text(record: dict[str, Any]) -> str:
    """Return the figures as text."""
    lines = [
        f"the {len(record['shapes'])} linears of a decoder layer, groups of {record['group_size']}, "
        f"{record['threads']} threads, medians of up to {record['runs']}; {record['ways']}"
    ]
    for kind, found in record["kinds"].items():
        name = f"{kind} bits" if kind.isdigit() else f"{kind}-coded"
        for count, part in found.items():
            ways = [way.removesuffix("_ms") for way in part if way.endswith("_ms")]
            times = ", ".join(f"{way} {part[f'{way}_ms']:.2f} ms" for way in ways)
            judged = "passed" if part["passed"] else "NOT passed"
            bar = "" if part["bar"] is None else f" (bar {part['bar']:g}: {judged})"
            lines.append(
                f"{name}, {count:>3} rows: {times}: {part['ratio']:.2f} times as fast{bar}, "
                f"by processor time {part['processor_ratio']:.2f}"
            )
    return "\n".join(lines)
