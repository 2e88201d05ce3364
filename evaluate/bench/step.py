"""Time one token through a decoder layer's linears: packed codes against bfloat16 weights.

This is the work of a step of generation for one hypothesis, at the full model's shapes. The linears of both models are
larger than a processor's cache, so weights come from memory, as they do in a step through the whole model.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from evaluate.bench.full_size import full_size_config
from submission.model.codecs.affine import Affine
from submission.model.families import tensors
from submission.runtime.packed import PackedLinear, PackedTensor, prepack_linears

BAR = 3.0
"""How many times as fast as `F.linear` in bfloat16 one token must be, at each width."""

DTYPE = torch.bfloat16
WARM_UP = 3


def bench_step(
    shapes: Sequence[tuple[int, int]] | None = None,
    *,
    bits: Sequence[int] = (4, 3, 2),
    group_size: int = 128,
    rows: Sequence[int] = (1, 8, 32),
    runs: int = 15,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the milliseconds of a layer's linears on the CPU, and how many times as fast the packed ones are.

    shapes: [rows, columns] of each weight; None for those of a decoder layer of the campaign's model. rows: hypotheses
    that take the step together. Weights and codes are random, and time depends on neither. `bfloat16`, `packed` and
    `dequantized`, the packed ones without a kernel, run in turn; times are medians, ratios medians of neighbours.
    """
    generator = torch.Generator().manual_seed(seed)
    shapes = layer_shapes() if shapes is None else list(shapes)
    plain = nn.ModuleList(_plain(shape, generator) for shape in shapes)
    record: dict[str, Any] = {
        "shapes": shapes,
        "group_size": group_size,
        "runs": runs,
        "threads": torch.get_num_threads(),
        "bar": BAR,
        "bits": {},
    }
    for width in bits:
        codec = Affine(bits=width, group_size=group_size)
        layers = {
            "bfloat16": plain,
            "packed": nn.ModuleList(_packed(codec, shape, generator) for shape in shapes),
            "dequantized": nn.ModuleList(_packed(codec, shape, generator) for shape in shapes),
        }
        record["bits"][str(width)] = {
            "prepacked": prepack_linears(layers["packed"]),
            "rows": {str(count): _measure(layers, count, runs, generator) for count in rows},
        }
    return record


def layer_shapes() -> list[tuple[int, int]]:
    """Return the shapes of the linears of one decoder layer of the campaign's model."""
    specs = [spec for spec in tensors(full_size_config()) if spec.layer == 0 and not spec.role.startswith("audio")]
    return [spec.shape for spec in specs if len(spec.shape) == 2]


@torch.inference_mode()
def _measure(layers: dict[str, nn.ModuleList], count: int, runs: int, generator: torch.Generator) -> dict[str, float]:
    widths = [part.in_features for part in layers["packed"] if isinstance(part, PackedLinear)]
    inputs = [torch.randn(count, width, generator=generator).to(DTYPE) for width in widths]
    taken: dict[str, list[float]] = {name: [] for name in layers}
    for run in range(WARM_UP + runs):
        for name, parts in layers.items():
            if name == "dequantized" and run >= 2 * WARM_UP:  # so slow that few runs suffice
                continue
            started = time.perf_counter()
            for part, given in zip(parts, inputs, strict=True):
                part(given)
            if run >= WARM_UP:
                taken[name].append((time.perf_counter() - started) * 1e3)
    pairs = zip(taken["bfloat16"], taken["packed"], strict=True)
    medians = {f"{name}_ms": round(statistics.median(times), 3) for name, times in taken.items()}
    return medians | {"ratio": round(statistics.median(a / b for a, b in pairs), 2)}


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
        f"{record['threads']} threads, medians of {record['runs']}"
    ]
    for width, found in record["bits"].items():
        for count, part in found["rows"].items():
            bar = f" (bar: {record['bar']:g})" if count == "1" else ""
            times = ", ".join(f"{name} {part[f'{name}_ms']:.2f} ms" for name in ("bfloat16", "packed", "dequantized"))
            lines.append(f"{width} bits, {count:>2} rows: {times}: {part['ratio']:.2f} times as fast{bar}")
    return "\n".join(lines)
