"""Measure the steps of quantization that run a model, on a few layers of full width: sweep, second moments, solvers.

Weights are random and utterances are noise, since none of the times depends on values. What is measured of a few layers
is given for one layer and utterance, so that it can be multiplied.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from quantize.calibration.moments import InputMoments
from quantize.ranking.sensitivity import encode_swaps, pack_base, swapped_codecs
from quantize.ranking.sweep import sweep_batch
from quantize.rehearsal.random_checkpoint import make_checkpoint, with_layers
from quantize.solvers.bound import bind_solver
from quantize.solvers.feedback import factorize, solve_feedback
from submission.model.codecs.affine import Affine
from submission.model.families import family_of, tensors
from submission.runtime.families import runtime_of
from submission.runtime.loading import load_weights
from submission.runtime.loss import make_batch
from submission.runtime.prompt import Example
from submission.system.recipe.quantize_options import QuantizeOptions

SECONDS = 7.7
"""Mean length of an utterance of ACL 60/60 dev."""
PROMPT_TOKENS, TARGET_TOKENS = 12, 40
STEP = 0.02
"""Of the feedback solver, about the spread of the random weights."""


def bench_layers(
    config: dict[str, Any], options: QuantizeOptions, device: torch.device, *, layers: int, utterances: int
) -> dict[str, Any]:
    """Return seconds and memory of each part on a device.

    config: of the whole model; options: with a ranked override, as of the contrastive recipe; layers: how many of the
    decoder and of the encoder are made.
    """
    few = with_layers(config, layers)
    with tempfile.TemporaryDirectory() as scratch:
        plain, work = Path(scratch, "plain"), Path(scratch, "packed")
        make_checkpoint(plain, few)
        begun = time.perf_counter()
        packed = pack_base(plain, work, options)
        packing = time.perf_counter() - begun
        found = _sweep(few, plain, packed, options, device, utterances)
    count = sum(spec.shape[0] * spec.shape[1] for spec in tensors(few) if spec.packable)
    return {
        "layers": layers,
        "packed_per_second": count / packing,
        **found,
        **_moments(config, device),
        **_solvers(config, device),
    }


def _sweep(
    config: dict[str, Any], plain: Path, packed: Path, options: QuantizeOptions, device: torch.device, utterances: int
) -> dict[str, float]:
    """Return the seconds of a sensitivity sweep over one utterance, and the peak of the device's memory."""
    model = load_weights(packed, torch.bfloat16, device)
    swaps = encode_swaps(plain, model, swapped_codecs(config, options), options.solver)
    batch = make_batch(_examples(config, utterances), 0, device)
    _reset_peak(device)
    with torch.inference_mode():
        sweep_batch(model, swaps, batch)  # the first one loads kernels
        begun = _now(device)
        sweep_batch(model, swaps, batch)
        seconds = _now(device) - begun
    return {"sweep_seconds_per_utterance": seconds / utterances, "sweep_peak_bytes": _peak(device)}


def _examples(config: dict[str, Any], count: int) -> list[Example]:
    runtime, generator = runtime_of(config), torch.Generator().manual_seed(0)
    most = family_of(config).ordinary_tokens(config)
    examples = []
    for _ in range(count):
        audio = runtime.noise(config, SECONDS, generator)
        text = torch.randint(0, most, (PROMPT_TOKENS + TARGET_TOKENS,), generator=generator)
        spoken = torch.full((audio.positions,), runtime.audio_token(config))
        ids = torch.cat([text[:PROMPT_TOKENS], spoken, text[PROMPT_TOKENS:]])
        examples.append(Example(audio=audio, input_ids=ids, prompt_tokens=PROMPT_TOKENS + audio.positions))
    return examples


def _moments(config: dict[str, Any], device: torch.device) -> dict[str, float]:
    """Return the seconds of summing the second moment of the widest input over a thousand positions."""
    width = max(spec.shape[1] for spec in tensors(config) if spec.packable)
    inputs = torch.randn(1000, width, device=device)
    sums = InputMoments()
    sums.add("widest", inputs)
    begun = _now(device)
    sums.add("widest", inputs)
    return {"moment_seconds_per_thousand_positions": _now(device) - begun}


def _solvers(config: dict[str, Any], device: torch.device) -> dict[str, float]:
    """Return weights a second of HQQ on the device, and of error feedback, which runs on the processor."""
    spec = next(spec for spec in tensors(config) if spec.role == "attn.q" and spec.name.endswith(".weight"))
    weight = torch.randn(spec.shape, generator=torch.Generator().manual_seed(0)) * STEP
    codec = Affine(bits=4, group_size=128)
    solve, here = bind_solver("hqq")(spec.name, codec), weight.to(device)
    codec.encode(here, solve)
    begun = _now(device)
    codec.encode(here, solve)
    hqq = _now(device) - begun
    inputs = torch.randn(2 * spec.shape[1], spec.shape[1], generator=torch.Generator().manual_seed(1))
    factor = factorize(inputs.t() @ inputs / len(inputs), spec.shape[1])
    begun = time.perf_counter()
    solve_feedback(weight, factor, torch.ones(spec.shape[0]), STEP)
    feedback = time.perf_counter() - begun
    return {"hqq_per_second": weight.numel() / hqq, "feedback_per_second": weight.numel() / feedback}


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def layers_text(figures: dict[str, Any]) -> str:
    """Return the figures as text."""
    return "\n".join(
        [
            f"sensitivity sweep of {figures['layers']} layers: {figures['sweep_seconds_per_utterance']:.3f} s an "
            f"utterance, peak {figures['sweep_peak_bytes'] / 2**30:.1f} GiB",
            f"second moment of the widest input: {figures['moment_seconds_per_thousand_positions']:.4f} s a thousand "
            "positions",
            f"packing on the processor {figures['packed_per_second'] / 1e6:.1f} M weights/s; HQQ here "
            f"{figures['hqq_per_second'] / 1e6:.1f}, error feedback on the processor "
            f"{figures['feedback_per_second'] / 1e6:.1f}",
        ]
    )
