"""Measure the way from a checkpoint to an entropy-coded model at full size: moments, solving, decoding at loading.

A checkpoint of the campaign's shapes with random weights and one layer in each stack goes through the very functions of
the stages, on noise of 30 s. What a layer takes is multiplied by the number of layers; what the embedding and the head
take is measured on some of their rows and multiplied by the rest. Processor seconds are what counts on a machine that
others use too: with t threads that work all of the time, a t-th of them passes.
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from quantize.calibration.layerwise import LayerwiseModel
from quantize.calibration.layerwise_moments import LayerwiseMoments, MomentsBatch
from quantize.calibration.model_moments import make_batches, observed_weights, positions_of
from quantize.calibration.moment_files import read_diagonal, read_factor, read_importance
from quantize.packing.pack import encode, read_tensor
from quantize.rehearsal.packing import CAMPAIGN
from quantize.rehearsal.random_checkpoint import make_checkpoint, with_layers
from quantize.rehearsal.random_moments import draw_moments
from quantize.solvers.bound import bind_solver
from quantize.solvers.feedback import InputFactor, Moments
from quantize.solvers.rate import draw_sample, estimate_rate, expected_log2_constant
from submission.benchmarking import describe_machine, peak_of_this_process
from submission.model.checkpoint import Checkpoint
from submission.model.codecs.entropy.codec import Entropy
from submission.model.families import family_of, shipped_config, tensors
from submission.model.families.tensors import TensorSpec
from submission.model.moments_size import input_keys, moments_size
from submission.progress import progress
from submission.runtime.families import runtime_of
from submission.runtime.prompt import Example
from submission.system.campaign import read_campaign

SECONDS, PROMPT_TOKENS, TARGET_TOKENS = 30.0, 30, 40
UTTERANCES = 1
SAMPLED_ROWS = 4096
"""Rows of embedding and head that are solved."""
LEAST_SIDE = 256
"""Rows and columns of weights that are solved."""
BITS = 3.8
WHOLE = ("allotting", "solving", "solving_wall", "loading")
"""Seconds that are summed up for the whole model."""


class Clock:
    """Processor seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Add what a block takes."""
        started = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - started


class TimedMoments(LayerwiseMoments):
    """Moments with the processor time of every part; that of a layer covers its factors."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clock = Clock()

    def _enter(self, stack: str, *args: Any) -> Any:
        with self.clock.of(f"before {stack}"):
            return super()._enter(stack, *args)

    def _forward_layer(self, stack: str, *args: Any) -> None:
        with self.clock.of(f"forward {stack}"):
            super()._forward_layer(stack, *args)

    def _backward_layer(self, stack: str, *args: Any) -> None:
        with self.clock.of(f"backward {stack}"):
            super()._backward_layer(stack, *args)

    def _write_factors(self, *args: Any, **kwargs: Any) -> None:
        with self.clock.of("factors"):
            super()._write_factors(*args, **kwargs)


def noise_batches(checkpoint: Checkpoint, utterances: int) -> list[MomentsBatch]:
    """Return batches of noise with random prompts and translations."""
    generator = torch.Generator().manual_seed(0)
    runtime, config = runtime_of(checkpoint.config), checkpoint.config
    examples = []
    for _ in range(utterances):
        audio = runtime.noise(config, SECONDS, generator)
        plain = family_of(config).ordinary_tokens(config)
        text = torch.randint(plain, (PROMPT_TOKENS + TARGET_TOKENS,), generator=generator)
        ids = torch.cat([torch.full((audio.positions,), runtime.audio_token(config)), text])
        examples.append(Example(input_ids=ids, prompt_tokens=len(ids) - TARGET_TOKENS, audio=audio))
    return make_batches(checkpoint, examples, 0)


def measure_moments(folder: Path, out: Path) -> dict[str, Any]:
    """Return processor seconds of a batch in each part, forward and backward, and the peak of memory."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    model = LayerwiseModel(folder, dtype=torch.float32, device="cpu")
    weights = observed_weights(model)
    batches = noise_batches(model.checkpoint, UTTERANCES)
    rows = {spec.role: spec.shape[0] for spec in tensors(model.checkpoint.config)}
    passes = TimedMoments(
        model,
        weights,
        positions_of(model.checkpoint),
        batches,
        gradient_batches=1,
        out=out,
        scratch=out / "activations",
    )
    passes.forward()
    with passes.clock.of("head"):
        passes.head(torch.Generator().manual_seed(0))
    passes.backward(torch.ones(rows["embedding"], dtype=torch.int64))
    passes.store.clear()
    return {"seconds": passes.clock.seconds, "peak_bytes": peak_of_this_process()}


def moments_of(moments: Path, checkpoint: Checkpoint, name: str, rows: int) -> Moments:
    """Return the moments of some rows of a weight."""
    key = input_keys(checkpoint.config)[name]
    return Moments(
        stored_factor=functools.partial(read_factor, moments, key),
        stored_diagonal=functools.partial(read_diagonal, moments, key),
        importance=read_importance(moments, name)[:rows],
    )


def measure_solving(folder: Path, moments: Path) -> dict[str, Any]:
    """Return processor seconds by weight: of allocation, of solving and encoding, of checking and decoding it.

    With a trellis, as the recipe `frontier` has it. Where the folder holds no moments, random ones are drawn.
    """
    checkpoint = LayerwiseModel(folder, dtype=torch.float32, device="cpu").checkpoint
    if not moments.is_dir():
        draw_moments(moments, checkpoint.config)
    found: dict[str, Any] = {}
    specs = [spec for spec in tensors(checkpoint.config) if spec.packable and min(spec.shape) >= LEAST_SIDE]
    _solve(checkpoint, moments, specs[0])  # compiles
    with progress("solve", len(specs), "weights") as tick:
        for spec in specs:
            found[spec.name] = _solve(checkpoint, moments, spec)
            tick(1)
    return {"weights": found, "peak_bytes": peak_of_this_process()}


def _solve(checkpoint: Checkpoint, moments: Path, spec: TensorSpec) -> dict[str, Any]:
    rows = spec.shape[0] if spec.layer is not None else min(spec.shape[0], SAMPLED_ROWS)
    weight = read_tensor(checkpoint.located[spec.name], spec.name)[:rows]
    codec = Entropy(budget_bytes=round(weight.numel() * BITS / 8), trellis=True)
    side = {"moments": moments_of(moments, checkpoint, spec.name, rows)}
    allotted = _allot(weight, side["moments"])
    started, wall = time.process_time(), time.perf_counter()
    parts = encode(spec.name, weight, codec, bind_solver("feedback", lambda _: side))
    solved, solved_wall = time.process_time() - started, time.perf_counter() - wall
    stored, shape = {name.rpartition(".")[2]: part for name, part in parts.items()}, tuple(weight.shape)
    started = time.process_time()
    codec.check(stored, shape)
    codec.scaled_codes(stored, shape)
    return {
        "rows": rows,
        "allotting": allotted,
        "solving": round(solved, 2),
        "solving_wall": round(solved_wall, 2),
        "loading": round(time.process_time() - started, 3),
    }


def _allot(weight: torch.Tensor, moments: Moments) -> float:
    """Return the processor seconds that allocation takes for a weight: closed form, factor, rate from sampled rows."""
    started = time.process_time()
    diagonal = InputFactor(diagonal=moments.read_diagonal(weight.shape[1]), feedback=None)
    sample = draw_sample(weight, diagonal, moments.importance)
    expected = expected_log2_constant(sample, diagonal, BITS, trellis=True)
    estimate_rate(sample, moments.read_factor(weight.shape[1]), expected, trellis=True)
    return round(time.process_time() - started, 2)


def whole_model(config: dict[str, Any], weights: dict[str, dict[str, Any]], key: str) -> float:
    """Return processor seconds for all weights of a configuration from those of a model with one layer a stack."""
    total = 0.0
    for spec in tensors(config):
        first = spec.name if spec.layer is None else spec.name.replace(f".{spec.layer}.", ".0.", 1)
        if first in weights:
            # Of allocation, which samples rows, those of embedding and head beyond the ones measured take nothing.
            share = 1.0 if key == "allotting" else spec.shape[0] / weights[first]["rows"]
            total += weights[first][key] * share
    return total


def main() -> None:
    """Measure the parts named, all by default, and write the record beside the work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoint and moments, 6 GB")
    parser.add_argument(
        "part", choices=["moments", "solving"], help="solving reads what moments wrote, or random moments"
    )
    args = parser.parse_args()
    whole = shipped_config(read_campaign(CAMPAIGN).model.name)
    assert whole is not None, "the campaign's configuration ships"
    plain, moments = args.work / "checkpoint", args.work / "moments"
    make_checkpoint(plain, with_layers(whole, 1))
    if args.part == "moments":
        record = measure_moments(plain, moments)
        record["forecast_bytes"] = moments_size(whole).memory_bytes
    else:
        record = measure_solving(plain, moments)
        record |= {key: whole_model(whole, record["weights"], key) for key in WHOLE}
    print(json.dumps(record | {"machine": describe_machine() | {"threads": torch.get_num_threads()}}, indent=1))


if __name__ == "__main__":
    main()
