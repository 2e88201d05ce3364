"""Rows of `bench_lm`: a method at a size, the weights that it gives, and what they cost a real language model."""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from quantize.bench.language_model.paper_recipe import quantize_awq, quantize_paper
from quantize.bench.language_model.peer_gptq import stored_bits
from quantize.bench.language_model.quantized_weights import Problem, Quantized, packed_bytes, packed_tensor
from quantize.bench.language_model.recovery import recover_weights, recovery_sequences
from quantize.bench.language_model.smollm2 import EMBEDDING, Evaluation
from quantize.solvers.allocation import Allocation, allocate
from quantize.solvers.feedback import InputFactor, Moments, factorize, predicted_loss
from quantize.solvers.fitting import solve_entropy
from quantize.solvers.rate import draw_sample, estimate_rate, expected_log2_constant
from submission.errors import UserError
from submission.model.codecs.entropy.codec import Entropy
from submission.model.codecs.entropy.layout import Header, check_header
from submission.progress import progress
from submission.runtime.packed import PackedTensor

SCALE_BYTES = 2
"""Bytes of the scale of a row or a column."""
LINEARS = "linears:"
"""Prefix of a row that leaves embedding and head at full precision and out of its bits."""
TRELLIS = "trellis"
"""The method `feedback` with codes that follow a trellis."""
METHODS = ("feedback", TRELLIS, "diagonal", "equal-rate", "one-step")
PAPER, AWQ, GPTQ = "paper", "awq", "gptq"
GPTQ_CODE_BITS = {stored_bits(bits): bits for bits in range(2, 9)}
"""Bits of a row of gptq, scales included -> bits of a code."""
RECOVER = "recover:"
"""Prefix of a row that is tuned afterwards."""
LAST_STEPS = 10
"""Steps of recovery that its last figure is the mean of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRow:
    """What is measured."""

    text: str
    recovered: bool
    linears: bool
    method: str
    bits: float | None
    """None for the paper's recipe and AWQ, which have as many as they take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The environment of llm-compressor, and the files that it reads."""

    python: Path
    work: Path

    @property
    def checkpoint(self) -> Path:
        """The original model."""
        return self.work / "original"

    @property
    def calibration(self) -> Path:
        """The sequences that it calibrates on."""
        return self.work / "calibration.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationText:
    """What methods other than ours may read too."""

    tokens: torch.Tensor
    """int64 [tokens]: what rows are tuned on afterwards."""
    sequences: torch.Tensor
    """int64 [sequences, 512]: of these, what moments of inputs, AWQ and the peer are calibrated on."""


def quantize_gptq(problem: Problem, bits: int, peer: Peer) -> Quantized:
    """Return what llm-compressor's GPTQ makes of the same weights by the same sequences."""
    out = peer.work / "gptq.safetensors"
    module = "quantize.bench.language_model.peer_gptq"
    command: list[str | Path] = [peer.python, "-m", module, "--bits", str(bits), "--out", out]
    command += ["--model", peer.checkpoint, "--calibration", peer.calibration]
    command += [] if EMBEDDING in problem.weights else ["--linears-only"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    weights = load_file(out)
    out.unlink()
    assert weights.keys() == problem.weights.keys(), "the peer has quantized other weights"
    return Quantized(weights=weights, size_bytes=int(problem.count() * stored_bits(bits) / 8), notes={})


def moments_of(problem: Problem, name: str, method: str) -> Moments:
    """Return what a method knows of a weight.

    method: `feedback`, `trellis`; `diagonal` moments alone; `equal-rate` without gradients; `one-step` without data.
    """
    if method == "one-step":
        return Moments()
    moment, importance = problem.second_moment(name), problem.importance(name)
    if method == "equal-rate":
        return Moments(second_moment=moment)
    return Moments(second_moment=moment.diagonal().diag() if method == "diagonal" else moment, importance=importance)


def allocate_bytes(problem: Problem, method: str, target_bytes: int) -> Allocation:
    """Return the one constant of all weights, and their budgets, scales included, which sum to a target.

    Rates are estimated from samples of rows around a constant in closed form.
    """

    def known(name: str) -> tuple[InputFactor, torch.Tensor | None]:
        moments = moments_of(problem, name, method)
        return factorize(moments.read_second_moment(), problem.weights[name].shape[1]), moments.importance

    bits, trellis = target_bytes * 8 / problem.count(), method == TRELLIS
    expected, samples = 0.0, {}
    for name, weight in problem.weights.items():
        factor, importance = known(name)
        samples[name] = draw_sample(weight, factor, importance)
        expected += weight.numel() * expected_log2_constant(samples[name], factor, bits, trellis=trellis)
    center = expected / problem.count()
    curves = {}
    with progress("allocate", len(problem.weights), "weights") as tick:
        for name, sample in samples.items():
            curves[name] = estimate_rate(sample, known(name)[0], center, trellis=trellis)
            tick(1)
    return allocate(curves, target_bytes)


def entropy_weight(
    weight: torch.Tensor, budget_bytes: int, moments: Moments, *, trellis: bool = False
) -> tuple[PackedTensor, Header]:
    """Return a weight as `entropy` stores it in a budget, and its stream's header.

    budget_bytes: of all parts, which have exactly as many.
    """
    shape = (weight.shape[0], weight.shape[1])
    codec = Entropy(trellis=trellis, budget_bytes=budget_bytes - SCALE_BYTES * sum(shape))
    parts = codec.encode(weight, functools.partial(solve_entropy, moments=moments))
    packed = packed_tensor(codec, parts, weight)
    assert packed_bytes(packed) == budget_bytes
    return packed, check_header(parts["stream"].numpy().tobytes(), *shape, len(parts["stream"]), trellis=trellis)


def quantize_feedback(problem: Problem, method: str, target_bytes: int) -> Quantized:
    """Return all weights in budgets that sum to a target, at about one constant; padding counts as bytes."""
    started = time.perf_counter()
    allocation = allocate_bytes(problem, method, target_bytes)
    allocated = time.perf_counter()
    packed, predicted, padding, exceptions = {}, 0.0, 0, 0
    with progress("encode", len(problem.weights), "weights") as tick:
        for name, weight in problem.weights.items():
            budget = allocation.budget_bytes[name]
            moments = moments_of(problem, name, method)
            packed[name], header = entropy_weight(weight, budget, moments, trellis=method == TRELLIS)
            padding += budget - SCALE_BYTES * sum(weight.shape) - header.used_bytes
            exceptions += header.exceptions
            decoded = packed[name].dequantize(torch.float32)
            predicted += predicted_loss(weight, decoded, problem.second_moment(name), problem.importance(name))
            tick(1)
    notes = {
        "constant": allocation.constant,
        "predicted_loss": predicted,
        "used": 1 - padding / target_bytes,
        "exceptions": exceptions / problem.count(),
        "seconds": {"allocate": allocated - started, "encode": time.perf_counter() - allocated},
    }
    return Quantized(weights=packed, size_bytes=sum(allocation.budget_bytes.values()), notes=notes)


def parse_row(text: str) -> BenchRow:
    """Return a row; UserError for one that is not written as the command's help says."""
    rest = text.removeprefix(RECOVER)
    method, at, bits = rest.removeprefix(LINEARS).partition("@")
    size = float(bits) if bits.replace(".", "", 1).isdecimal() else None
    row = BenchRow(text=text, recovered=rest != text, linears=rest.startswith(LINEARS), method=method, bits=size)
    if method == PAPER and not at or method in METHODS and size is not None:
        return row
    if method == AWQ and not at and not row.recovered:
        return row
    if method == GPTQ and not row.recovered and size in GPTQ_CODE_BITS:
        return row
    fix = f"write {PAPER}, {METHODS[0]}@3.86 or {GPTQ}@{stored_bits(4)}; python -m quantize.bench.language_model --help"
    raise UserError("bench_lm", f"row {text!r} is not known", fix)


def measure(
    row: BenchRow, problem: Problem, evaluation: Evaluation, peer: Peer, model: Any, calibration: CalibrationText
) -> dict[str, Any]:
    """Return the figures of a row."""
    if row.linears:
        problem = problem.linears()
    started = time.perf_counter()
    if row.method == PAPER:
        quantized = quantize_paper(problem)
    elif row.method == AWQ:
        quantized = quantize_awq(problem, model, calibration.sequences)
    elif row.method == GPTQ:
        assert row.bits is not None
        quantized = quantize_gptq(problem, GPTQ_CODE_BITS[row.bits], peer)
    else:
        assert row.bits is not None
        quantized = quantize_feedback(problem, row.method, int(row.bits * problem.count() / 8))
    notes = {"quantize_seconds": time.perf_counter() - started, **quantized.notes}
    if row.recovered:
        packed = {name: weight for name, weight in quantized.weights.items() if isinstance(weight, PackedTensor)}
        weights, losses = recover_weights(model, packed, recovery_sequences(calibration.tokens))
        last = losses[-LAST_STEPS:]
        notes |= {"recovery_seconds": time.perf_counter() - started - notes["quantize_seconds"]}
        notes |= {"recovery_kl": {"first": losses[0], "last": sum(last) / len(last)}}
    else:
        weights = quantized.decoded()
    size = {"bits": quantized.size_bytes * 8 / problem.count(), "size_bytes": quantized.size_bytes}
    return {"row": row.text, **size, **evaluation.score(weights).summary(), **notes}
