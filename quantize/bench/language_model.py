"""Quality per byte on a real language model: the paper's recipe and error feedback at the same bytes.

    nox -s bench_lm -- --text wikitext2_test.txt --calibration wikitext2_valid.txt

Sizes are the bytes of the parts that the codecs store, scales and padding included; the header of a file of weights is
left out. stdout has one JSON object a row; increases and divergences are nats per token.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quantize.bench.smollm2 import (
    EMBEDDING,
    HEAD,
    Evaluation,
    load_smollm2,
    observed_weights,
    read_tokens,
    run_of,
    spread_sequences,
    weight_tensors,
)
from quantize.calibration.moment_files import read_importance, read_second_moment
from quantize.calibration.moments import ObservedWeight, collect_gradient_moments, collect_input_moments
from quantize.solvers.allocation import Allocation, allocate
from quantize.solvers.feedback import InputFactor, Moments, factorize, predicted_loss
from quantize.solvers.fitting import solve_entropy
from quantize.solvers.hqq import solve_hqq
from quantize.solvers.rate import estimate_rate, expected_log2_constant
from submission.errors import UserError
from submission.model.codecs.affine import Affine
from submission.model.codecs.entropy.codec import Entropy
from submission.model.codecs.entropy.layout import Header, check_header
from submission.progress import progress

GROUP_SIZE = 128
THREE_BIT_LAYERS = 4
"""Layers whose MLPs the paper's recipe stores with 3 bits."""
SEED = 0
PART_BYTES = {"U8": 1, "F16": 2}
SCALE_BYTES = PART_BYTES["F16"]
"""Bytes of the scale of a row or a column."""
LINEARS = "linears:"
"""Prefix of a row that leaves embedding and head at full precision and out of its bits."""
METHODS = ("feedback", "diagonal", "equal-rate", "one-step")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is quantized, and what is known of it."""

    weights: dict[str, torch.Tensor]
    input_keys: dict[str, str]
    moments: Path

    def second_moment(self, name: str) -> torch.Tensor:
        """Return the second moment of a weight's inputs, float [columns, columns]."""
        return read_second_moment(self.moments, self.input_keys[name])

    def importance(self, name: str) -> torch.Tensor:
        """Return the second moment of the gradient at a weight's outputs, float [rows]."""
        return read_importance(self.moments, name)

    def count(self) -> int:
        """Return the number of quantized weights."""
        return sum(weight.numel() for weight in self.weights.values())

    def linears(self) -> Problem:
        """Return the problem without embedding and head."""
        chosen = {name: weight for name, weight in self.weights.items() if name not in (EMBEDDING, HEAD)}
        return Problem(weights=chosen, input_keys=self.input_keys, moments=self.moments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A model's weights after quantization, and what they take."""

    weights: dict[str, torch.Tensor]
    size_bytes: int
    notes: dict[str, Any]


def affine_weight(weight: torch.Tensor, bits: int) -> tuple[torch.Tensor, int]:
    """Return a weight as hqq's codes stand for it, float32, and its bytes."""
    codec = Affine(bits=bits, group_size=GROUP_SIZE)
    parts = codec.encode(weight, solve_hqq)
    sizes = codec.parts(tuple(weight.shape)).values()
    size = sum(PART_BYTES[dtype] * int(np.prod(shape)) for dtype, shape in sizes)
    return codec.decode(parts, tuple(weight.shape), torch.float32), size


def quantize_paper(problem: Problem) -> Quantized:
    """Return the paper's recipe: hqq with 4 bits, the embedding 2, the four MLPs that lose the least 3."""
    four = {n: affine_weight(w, 2 if n == EMBEDDING else 4) for n, w in problem.weights.items()}
    if EMBEDDING not in four:
        return _affine_model(four, [])
    three = {name: affine_weight(w, 3) for name, w in problem.weights.items() if ".mlp." in name}
    added: dict[str, float] = {}
    for name, (decoded, _) in three.items():
        moments = problem.second_moment(name), problem.importance(name)
        losses = [predicted_loss(problem.weights[name], d, *moments) for d in (decoded, four[name][0])]
        layer = name.partition(".mlp.")[0]
        added[layer] = added.get(layer, 0) + losses[0] - losses[1]
    chosen = sorted(added, key=lambda layer: added[layer])[:THREE_BIT_LAYERS]
    four.update({name: found for name, found in three.items() if name.partition(".mlp.")[0] in chosen})
    return _affine_model(four, chosen)


def _affine_model(found: Mapping[str, tuple[torch.Tensor, int]], chosen: list[str]) -> Quantized:
    return Quantized(
        weights={name: decoded for name, (decoded, _) in found.items()},
        size_bytes=sum(size for _, size in found.values()),
        notes={"three_bit_layers": chosen},
    )


def moments_of(problem: Problem, name: str, method: str) -> Moments:
    """Return what a method knows of a weight.

    method: `feedback`; `diagonal` moments alone; `equal-rate` without gradients; `one-step` without data.
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

    bits = target_bytes * 8 / problem.count()
    expected = sum(expected_log2_constant(w, *known(n), bits) * w.numel() for n, w in problem.weights.items())
    center = expected / problem.count()
    curves = {}
    with progress("allocate", len(problem.weights), "weights") as tick:
        for name, weight in problem.weights.items():
            curves[name] = estimate_rate(weight, *known(name), center)
            tick(1)
    return allocate(curves, target_bytes)


def entropy_weight(weight: torch.Tensor, budget_bytes: int, moments: Moments) -> tuple[torch.Tensor, Header]:
    """Return a weight as the parts stand for it that `entropy` stores in a budget, float32, and its stream's header.

    budget_bytes: of all parts, which have exactly as many.
    """
    shape = (weight.shape[0], weight.shape[1])
    codec = Entropy(budget_bytes=budget_bytes - SCALE_BYTES * sum(shape))
    parts = codec.encode(weight, functools.partial(solve_entropy, moments=moments))
    assert sum(part.numel() * part.element_size() for part in parts.values()) == budget_bytes
    header = check_header(parts["stream"].numpy().tobytes(), *shape, len(parts["stream"]))
    return codec.decode(parts, shape, torch.float32), header


def quantize_feedback(problem: Problem, method: str, target_bytes: int) -> Quantized:
    """Return all weights in budgets that sum to a target, at about one constant; padding counts as bytes."""
    started = time.perf_counter()
    allocation = allocate_bytes(problem, method, target_bytes)
    allocated = time.perf_counter()
    decoded, predicted, padding, exceptions = {}, 0.0, 0, 0
    with progress("encode", len(problem.weights), "weights") as tick:
        for name, weight in problem.weights.items():
            budget = allocation.budget_bytes[name]
            decoded[name], header = entropy_weight(weight, budget, moments_of(problem, name, method))
            padding += budget - SCALE_BYTES * sum(weight.shape) - header.used_bytes
            exceptions += header.exceptions
            predicted += predicted_loss(weight, decoded[name], problem.second_moment(name), problem.importance(name))
            tick(1)
    notes = {
        "constant": allocation.constant,
        "predicted_loss": predicted,
        "used": 1 - padding / target_bytes,
        "exceptions": exceptions / problem.count(),
        "seconds": {"allocate": allocated - started, "encode": time.perf_counter() - allocated},
    }
    return Quantized(weights=decoded, size_bytes=sum(allocation.budget_bytes.values()), notes=notes)


def calibrate(
    model: Any, weights: list[ObservedWeight], tokens: torch.Tensor, folder: Path, counts: tuple[int, int]
) -> None:
    """Fill a folder with the moments of all weights; counts: sequences for inputs and for gradients."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    run = run_of(model)
    started = time.perf_counter()
    frequencies = torch.bincount(tokens, minlength=model.config.vocab_size)
    batches = spread_sequences(tokens, counts[1]).split(1)
    generator = torch.Generator().manual_seed(SEED)
    collect_gradient_moments(model, weights, run, batches, folder, generator=generator, token_counts=frequencies)
    print(f"gradients of {counts[1]} sequences: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    collect_input_moments(weights, run, spread_sequences(tokens, counts[0]).split(1), folder)
    print(f"moments: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    (folder / "done").touch()


def main() -> None:
    """Print a JSON object for each row."""
    options = _parser().parse_args()
    for row in options.rows:
        _check_row(row)
    model, tokenizer = load_smollm2()
    weights = observed_weights(model)
    moments = options.work / f"moments-{options.inputs}-{options.gradients}"
    calibrate(model, weights, read_tokens(tokenizer, options.calibration), moments, (options.inputs, options.gradients))
    keys = {weight.name: weight.input_key for weight in weights}
    problem = Problem(weights=weight_tensors(weights), input_keys=keys, moments=moments)
    evaluation = Evaluation(model, spread_sequences(read_tokens(tokenizer, options.text), options.sequences))
    for row in options.rows:
        print(json.dumps(_measure(row, problem, evaluation)), flush=True)


def _check_row(row: str) -> None:
    """Raise UserError for a row that is not written as in `rows`' help."""
    method, at, bits = row.removeprefix(LINEARS).partition("@")
    if method == "paper" and not at:
        return
    if method not in METHODS or not bits.replace(".", "", 1).isdecimal():
        raise UserError("bench_lm", f"row {row!r} is not known", f"write paper, or {METHODS[0]}@3.86")


def _measure(row: str, problem: Problem, evaluation: Evaluation) -> dict[str, Any]:
    """Return the figures of a row, written as in `rows`' help."""
    method, _, bits = row.removeprefix(LINEARS).partition("@")
    if row.startswith(LINEARS):
        problem = problem.linears()
    started = time.perf_counter()
    if method == "paper":
        quantized = quantize_paper(problem)
    else:
        quantized = quantize_feedback(problem, method, int(float(bits) * problem.count() / 8))
    return {
        "row": row,
        "bits": quantized.size_bytes * 8 / problem.count(),
        "size_bytes": quantized.size_bytes,
        "quantize_seconds": time.perf_counter() - started,
        **evaluation.score(quantized.weights).summary(),
        **quantized.notes,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m quantize.bench.language_model", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--text", type=Path, required=True, help="what losses are measured on")
    parser.add_argument("--calibration", type=Path, required=True, help="what moments are taken on")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps the moments")
    parser.add_argument("--sequences", type=int, default=40, help="sequences of 512 tokens that are scored (40)")
    parser.add_argument("--inputs", type=int, default=32, help="sequences for second moments of inputs (32)")
    parser.add_argument("--gradients", type=int, default=32, help="sequences for moments of gradients (32)")
    what = (
        f"paper, or one of {', '.join(METHODS)} with bits, as in feedback@3.86; linears:paper leaves the rest as it is"
    )
    parser.add_argument("rows", nargs="*", default=["paper", "feedback@3.86"], help=what)
    return parser


if __name__ == "__main__":
    main()
