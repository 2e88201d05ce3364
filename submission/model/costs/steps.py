"""Count what each step of one system does, from the shapes of its model and from what is assumed of the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from submission.model.costs.model_shapes import ModelShapes
from submission.model.costs.operations import (
    adapter_parameters,
    forward_flops,
    parameter_count,
    utterance_positions,
)
from submission.model.families import tensors
from submission.model.moments_size import moments_size, outside_bytes, state_bytes
from submission.model.recovery_size import recovery_bytes

if TYPE_CHECKING:
    from submission.system.recipe.recipe import Recipe

CONTEXT_BYTES = 1_500_000_000
"""What a process with torch takes besides tensors, on a card or a processor."""

TRAIN_SECONDS = 6.0
"""Mean length of a training utterance (the paper's Table 3: 446 hours in 260,000)."""
DEV_UTTERANCES, DEV_SECONDS = 468, 7.7
"""ACL 60/60 dev."""
BLIND_HOURS = 8.0
"""Of the six blind test sets and ACL 60/60 eval, by what is known of their recordings."""
SEGMENT_SECONDS = 8.0
"""Mean length of a segment."""
CLASSIFIER_FLOPS_PER_SECOND = 30e9
"""Operations of a SHAS classifier on xls-r-300m, 15 layers, per second of audio."""
DECODED_PER_CORE_SECOND = 100.0
"""Seconds of compressed audio that a core decodes and resamples in one."""
ALLOCATED_PER_CORE_SECOND, FED_BACK_PER_CORE_SECOND = 32e6, 3.8e6
"""Weights whose budget a core finds in a second, and which it solves with error feedback and encodes, at the shapes of
Qwen2-Audio-7B: 8.4 billion in 131 and 1,099 seconds of two cores (docs/quantization.md)."""
SOLVED_WEIGHT_BYTES = 6.5
"""Memory of error feedback for each weight of the largest tensor: 5.2 GiB for an embedding of 156,032 × 4096."""
SCORED_PER_CORE_SECOND = 30.0
"""Segments that a core aligns with their references and scores, at some thousands a test set."""
SAMPLED_POSITIONS, EXPONENTS = 512, 20
"""What AWQ searches its scales on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepWork:
    """What a step does, whatever it runs on."""

    step: str
    flops: float = 0.0
    training: bool = False
    weight_bytes: float = 0.0
    """Weights read from memory, over all passes in which they and not the operations take the time."""
    solved: float = 0.0
    """Weights for which a solver is run."""
    file_bytes: float = 0.0
    """Read and written."""
    core_seconds: float = 0.0
    """Of one core of a processor, for what runs on processors everywhere."""
    memory_bytes: int = CONTEXT_BYTES
    disk_bytes: int = 0
    """That its result takes in the store or beside it."""
    scratch_bytes: int = 0
    """That its files take on disk besides, at most, while it runs."""
    on_card: bool = True
    """Whether it uses a card where there is one."""


def step_works(
    config: dict[str, Any], recipe: Recipe, pairs: int, packed_bytes: int, window_seconds: float
) -> dict[str, StepWork]:
    """Return what the steps of one system do, by name, in order.

    config: of the checkpoint; pairs: the campaign's; packed_bytes: what the packed model weighs; window_seconds: the
    longest audio that the model takes.
    """
    makers: Mapping[str, Callable[[_SystemShapes, Recipe], StepWork]] = {
        "corpus": _corpus,
        "finetune": _finetune,
        "merge": _merge,
        "sensitivity": _sensitivity,
        "awq": _awq,
        "calibrate": _calibrate,
        "allocate": _allocate,
        "pack": _pack,
        "recover": _recover,
        "segment": _segment,
        "decode": _decode,
        "score": _score,
        "bundle": _bundle,
    }
    quantize = recipe.quantize
    wanted = {
        "sensitivity": quantize.ranked is not None,
        "awq": quantize.awq is not None,
        "calibrate": quantize.moments is not None,
        "allocate": quantize.target is not None,
        "pack": bool(quantize.codecs),
        "recover": quantize.recovery is not None,
    }
    shapes = _SystemShapes(config=config, pairs=pairs, packed_bytes=packed_bytes, window_seconds=window_seconds)
    return {name: make(shapes, recipe) for name, make in makers.items() if wanted.get(name, True)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _SystemShapes(ModelShapes):
    """A model's shapes, and what its campaign and its packed model add to them."""

    pairs: int
    packed_bytes: int
    window_seconds: float


def _corpus(shapes: _SystemShapes, recipe: Recipe) -> StepWork:
    seconds = sum(recipe.corpus.utterances.values()) * TRAIN_SECONDS
    return StepWork(step="corpus", core_seconds=seconds / DECODED_PER_CORE_SECOND, on_card=False)


def _finetune(shapes: _SystemShapes, recipe: Recipe) -> StepWork:
    config, options = shapes.config, recipe.finetune
    utterances = sum(recipe.corpus.utterances.values())
    steps = options.epochs * utterances / options.batch_size
    evaluated = (steps / options.save_every_steps + 1) * DEV_UTTERANCES * shapes.pairs * DEV_SECONDS / TRAIN_SECONDS
    passes = 3 if options.gradient_checkpointing else 2  # forward, gradients of activations, forward again
    adapters = adapter_parameters(config, options.roles, options.rank)
    forward = forward_flops(config, TRAIN_SECONDS, trimmed=True)
    return StepWork(
        step="finetune",
        flops=forward * (passes * options.epochs * utterances + evaluated),
        training=True,
        memory_bytes=finetune_bytes(shapes, recipe),
        disk_bytes=adapters * (4 + 2 * 12),  # the adapters, and two checkpoints with Adam's moments
    )


def finetune_bytes(shapes: ModelShapes, recipe: Recipe, seconds: float = 2 * TRAIN_SECONDS) -> int:
    """Return the memory of a training step: weights, adapters with gradients and Adam's moments, activations, logits.

    seconds: length of the utterances of a batch, all padded to the longest.
    """
    options, config = recipe.finetune, shapes.config
    _, tokens, text = utterance_positions(config, seconds)
    element = 2 if options.dtype == "bfloat16" else 4
    rows = options.batch_size * tokens
    inner = shapes.layer_bytes // 4 // shapes.width  # columns and rows of a layer's weights, per position
    kept = shapes.layers * shapes.width if options.gradient_checkpointing else shapes.layers * inner
    vocabulary = max(s.shape[0] for s in tensors(config) if s.role in ("embedding", "lm_head"))
    weights = element * parameter_count(config) + 16 * adapter_parameters(config, options.roles, options.rank)
    activations = rows * element * (kept + 2 * inner) + options.batch_size * text * vocabulary * 4 * 3
    return CONTEXT_BYTES + weights + activations


def _merge(shapes: _SystemShapes, recipe: Recipe) -> StepWork:
    return StepWork(
        step="merge",
        file_bytes=2.0 * shapes.plain_bytes,
        memory_bytes=CONTEXT_BYTES + shapes.layer_bytes,
        disk_bytes=shapes.plain_bytes,
        on_card=False,
    )


def _sensitivity(shapes: _SystemShapes, recipe: Recipe) -> StepWork:
    """L layers with a fork at each cost L + L (L + 1) / 2 runs of a layer, and L + 1 of the head (ranking/sweep.py)."""
    runs = shapes.layers + 1
    *_, text = utterance_positions(shapes.config, DEV_SECONDS)
    forward = forward_flops(shapes.config, DEV_SECONDS, predicted=runs * text, layer_runs=1 + runs / 2)
    _, tokens, _ = utterance_positions(shapes.config, 2 * DEV_SECONDS)
    forks = 8 * tokens * shapes.layers * shapes.width * 2
    return StepWork(
        step="sensitivity",
        flops=forward * DEV_UTTERANCES * shapes.pairs,
        solved=2.0 * shapes.solvable,
        file_bytes=shapes.plain_bytes + 2.0 * shapes.packed_bytes,
        memory_bytes=CONTEXT_BYTES
        + shapes.packed_bytes
        + shapes.layer_bytes
        + forks
        + shapes.activation_bytes(8, 2 * DEV_SECONDS),
    )


def _awq(shapes: _SystemShapes, recipe: Recipe) -> StepWork:
    """The hidden states of all utterances at one point of each stack stay in memory, beside one part of the model."""
    options = recipe.quantize.awq
    assert options is not None
    utterances = options.utterances or DEV_UTTERANCES
    products = 2.0 * shapes.solvable * SAMPLED_POSITIONS * EXPONENTS
    frames, tokens, _ = utterance_positions(shapes.config, DEV_SECONDS)
    states = state_bytes(shapes.config, frames, tokens)
    part = max(4 * shapes.layer_bytes, outside_bytes(shapes.config))
    return StepWork(
        step="awq",
        flops=forward_flops(shapes.config, DEV_SECONDS, predicted=0) * utterances + products,
        solved=float(EXPONENTS) * shapes.solvable,
        file_bytes=shapes.plain_bytes,
        memory_bytes=CONTEXT_BYTES + part + utterances * sum(states.values()),
    )


def _calibrate(shapes: _SystemShapes, recipe: Recipe) -> StepWork:
    options, size = recipe.quantize.moments, moments_size(shapes.config)
    assert options is not None
    utterances = options.utterances or sum(recipe.corpus.utterances.values())
    traced = options.gradient_utterances if options.fisher else 0
    passes = utterances + 3 * traced  # forward for the inputs of layers, forward with a graph, gradients of activations
    points = 2 * utterances + 5 * traced  # what a layer reads and writes in each pass; with a graph gradients, too
    states = state_bytes(shapes.config, *utterance_positions(shapes.config, TRAIN_SECONDS)[:2])
    moved = points * sum(size.depths[stack] * state for stack, state in states.items())
    return StepWork(
        step="calibrate",
        flops=forward_flops(shapes.config, TRAIN_SECONDS) * passes,
        training=True,
        file_bytes=shapes.plain_bytes + size.disk_bytes + moved,
        memory_bytes=size.memory_bytes,
        disk_bytes=size.disk_bytes,
        scratch_bytes=size.activation_bytes(utterances, traced),
    )


def _allocate(shapes: _SystemShapes, recipe: Recipe) -> StepWork:
    return StepWork(
        step="allocate",
        core_seconds=shapes.solvable / ALLOCATED_PER_CORE_SECOND,
        file_bytes=shapes.plain_bytes + moments_size(shapes.config).disk_bytes,
        memory_bytes=CONTEXT_BYTES + shapes.layer_bytes,
        on_card=False,
    )


def _pack(shapes: _SystemShapes, recipe: Recipe) -> StepWork:
    calibrated, budgeted = recipe.quantize.moments is not None, recipe.quantize.target is not None
    moments_bytes = moments_size(shapes.config).disk_bytes if calibrated else 0
    return StepWork(
        step="pack",
        solved=0.0 if calibrated else float(shapes.solvable),
        core_seconds=shapes.solvable / FED_BACK_PER_CORE_SECOND if calibrated else 0.0,
        file_bytes=shapes.plain_bytes + shapes.packed_bytes + moments_bytes,
        memory_bytes=CONTEXT_BYTES
        + max(shapes.layer_bytes, round((SOLVED_WEIGHT_BYTES if budgeted else 3) * shapes.largest)),
        disk_bytes=shapes.packed_bytes,
        on_card=not calibrated,
    )


def _recover(shapes: _SystemShapes, recipe: Recipe) -> StepWork:
    """The original's outputs once, then steps of a pass forward and one backward."""
    options = recipe.quantize.recovery
    assert options is not None
    utterances = options.utterances * len(options.pairs) or sum(recipe.corpus.utterances.values())
    return StepWork(
        step="recover",
        flops=forward_flops(shapes.config, TRAIN_SECONDS) * (utterances + 3 * options.steps * options.batch_size),
        training=True,
        file_bytes=shapes.plain_bytes + 2.0 * shapes.packed_bytes,
        memory_bytes=CONTEXT_BYTES + recovery_bytes(shapes.config),
        disk_bytes=shapes.packed_bytes,
    )


def _segment(shapes: _SystemShapes, recipe: Recipe) -> StepWork:
    needs = recipe.segment.about.needs_classifier
    return StepWork(
        step="segment", flops=BLIND_HOURS * 3600 * CLASSIFIER_FLOPS_PER_SECOND if needs else 0.0, memory_bytes=4 * 10**9
    )


def _decode(shapes: _SystemShapes, recipe: Recipe) -> StepWork:
    options = recipe.decode
    segments = shapes.pairs * BLIND_HOURS * 3600 / SEGMENT_SECONDS
    _, tokens, text = utterance_positions(shapes.config, SEGMENT_SECONDS)
    steps = segments / options.batch_size * text * 1.5  # until the longest of a batch ends
    cached = options.batch_size * options.num_beams * 2 * tokens * shapes.cached_numbers * 2
    return StepWork(
        step="decode",
        flops=segments * options.num_beams * forward_flops(shapes.config, SEGMENT_SECONDS, trimmed=True),
        weight_bytes=steps * shapes.packed_bytes,
        file_bytes=shapes.packed_bytes,
        memory_bytes=CONTEXT_BYTES
        + int(1.2 * shapes.packed_bytes)
        + cached
        + shapes.activation_bytes(options.batch_size, shapes.window_seconds),
    )


def _score(shapes: _SystemShapes, recipe: Recipe) -> StepWork:
    segments = shapes.pairs * BLIND_HOURS * 3600 / SEGMENT_SECONDS
    return StepWork(
        step="score", core_seconds=segments / SCORED_PER_CORE_SECOND, memory_bytes=500_000_000, on_card=False
    )


def _bundle(shapes: _SystemShapes, recipe: Recipe) -> StepWork:
    """The bundle, its archive and a check of both read and write the model five times."""
    return StepWork(
        step="bundle",
        file_bytes=5.0 * shapes.packed_bytes,
        memory_bytes=200_000_000,
        disk_bytes=2 * shapes.packed_bytes,
        on_card=False,
    )
