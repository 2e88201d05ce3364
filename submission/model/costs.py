"""Forecast time, memory and disk of every step of a campaign on a device: operations and bytes, counted from shapes.

A step's time is that of its operations at a share of the device's rate for bf16, of its bytes of weights at a share of
the bandwidth of its memory, and of its files at the disk's rate, one after the other. Operations are those of matrix
products, two for a multiplication and an addition, and of attention. The shares are assumptions until they are measured
on a card; they are constants here, and so is what is assumed of the data. So the forecast separates minutes from hours
and hours from days, and says whether a card's memory suffices. It promises no more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from submission.model.families import family_of, tensors
from submission.model.families.tensors import TensorSpec
from submission.model.moments_size import moments_size
from submission.model.sizes import GIB
from submission.text_table import aligned

if TYPE_CHECKING:
    from submission.system.recipe import Recipe

# --- devices ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a step runs on."""

    name: str
    flops_per_second: float
    """Stated peak of dense bf16 for a card, what a large product reaches for a processor."""
    bytes_per_second: float
    """Of its memory, stated or reached alike."""
    memory_bytes: int
    is_card: bool


CARDS = (
    Device(name="24 GB card", flops_per_second=125e12, bytes_per_second=0.6e12, memory_bytes=24 * 10**9, is_card=True),
    Device(name="80 GB card", flops_per_second=312e12, bytes_per_second=2.0e12, memory_bytes=80 * 10**9, is_card=True),
)
"""By the data sheets of NVIDIA's A10 and A100."""
CORE_FLOPS, CORE_BYTES = 30e9, 10e9
"""Of one core of a server's processor: operations in bfloat16 and bytes of memory per second."""


def processor(cores: int, memory_bytes: int, flops: float | None = None, bandwidth: float | None = None) -> Device:
    """Return a processor as a device; flops, bandwidth: measured on it, None for what such cores usually reach."""
    return Device(
        name=f"processor, {cores} cores",
        flops_per_second=flops or cores * CORE_FLOPS,
        bytes_per_second=bandwidth or cores * CORE_BYTES,
        memory_bytes=memory_bytes,
        is_card=False,
    )


PRODUCT_SHARE, TRAINING_SHARE, BANDWIDTH_SHARE = 0.4, 0.35, 0.6
"""Of a card's stated rates, what inference over whole sequences, training, and reading of weights reach. A processor's
rates are measured ones, of which it reaches about all."""
DISK_BYTES_PER_SECOND = 500e6
SOLVER_BYTES = 240
"""Memory traffic of solving one weight by HQQ on a card: twenty iterations over an intermediate of float32."""
SOLVED_PER_CORE_BYTE = 0.004
"""Weights that a processor solves a second, per byte of its memory's bandwidth: 8.4 billion in 106 s on two cores."""
CONTEXT_BYTES = 1_500_000_000
"""What a process with torch takes besides tensors, on a card or a processor."""

# --- data ---

TEXT_TOKENS_PER_SECOND = 5.0
"""Of speech, in a translation to German."""
PROMPT_TOKENS = 12
FRAMES_PER_SECOND = 100
TRAIN_SECONDS = 6.0
"""Mean length of a training utterance (the paper's Table 3: 446 hours in 260,000)."""
DEV_UTTERANCES, DEV_SECONDS = 468, 7.7
"""ACL 60/60 dev."""
BLIND_HOURS = 8.0
"""Of the six blind test sets and ACL 60/60 eval, by what is known of their recordings."""
SEGMENT_SECONDS = 8.0
CLASSIFIER_FLOPS_PER_SECOND = 30e9
"""Operations of a SHAS classifier on xls-r-300m, 15 layers, per second of audio."""
DECODED_PER_CORE_SECOND = 100.0
"""Seconds of compressed audio that a core decodes and resamples in one."""
SAMPLED_POSITIONS, EXPONENTS = 512, 20
"""What AWQ searches its scales on."""

# --- what one utterance costs ---


def forward_flops(config: dict[str, Any], seconds: float, *, predicted: int | None = None) -> float:
    """Return the operations of one utterance through the model, its translation included.

    predicted: positions of which the head computes logits; None for those of the translation.
    """
    frames, tokens, text = utterance_positions(config, seconds)
    total = 0.0
    for spec in tensors(config):
        positions = _positions(config, spec, frames, tokens)
        if spec.role == "lm_head":
            positions = text if predicted is None else predicted
        if len(spec.shape) > 1 and spec.role not in ("embedding", "audio.position"):
            total += 2.0 * math.prod(spec.shape) * positions
        if spec.name.endswith(".weight") and spec.role in ("attn.q", "audio.attn.q"):
            seen = positions / 2 if spec.role == "attn.q" else positions  # the decoder sees what lies behind it
            total += 4.0 * spec.shape[0] * positions * seen
    return total


def utterance_positions(config: dict[str, Any], seconds: float) -> tuple[int, int, int]:
    """Return frames of an utterance's features, its positions in the decoder, and those of its translation in them."""
    stacks = {stack.name: stack for stack in family_of(config).stacks}
    frames, text = round(seconds * FRAMES_PER_SECOND), round(seconds * TEXT_TOKENS_PER_SECOND)
    audio = stacks["projector"].positions(frames, 0) if "projector" in stacks else frames
    return frames, audio + PROMPT_TOKENS + text, text


def _positions(config: dict[str, Any], spec: TensorSpec, frames: int, tokens: int) -> int:
    """Return how many positions a tensor is multiplied with."""
    for stack in family_of(config).stacks:
        if stack.layers is not None and spec.name.startswith(f"{stack.layers}."):
            return stack.positions(frames, tokens)
        if stack.layers is None and spec.role == "projector":
            return stack.positions(frames, tokens)
    return frames if spec.role == "audio.conv" else tokens


def parameter_count(config: dict[str, Any]) -> int:
    """Return how many parameters the model has."""
    return sum(math.prod(spec.shape) for spec in tensors(config))


def adapter_parameters(config: dict[str, Any], roles: Iterable[str], rank: int) -> int:
    """Return how many parameters LoRA adapters have on the weights of some roles or prefixes of roles."""
    named = tuple(roles)
    adapted = [
        s for s in tensors(config) if s.packable and any(s.role == r or s.role.startswith(f"{r}.") for r in named)
    ]
    return sum(rank * sum(spec.shape) for spec in adapted)


# --- steps ---


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
    audio_seconds: float = 0.0
    """Of compressed audio to decode, by processors."""
    memory_bytes: int = CONTEXT_BYTES
    disk_bytes: int = 0
    """That its result takes in the store or beside it."""
    on_card: bool = True
    """Whether it uses a card where there is one."""


def step_works(config: dict[str, Any], recipe: Recipe, pairs: int, packed_bytes: int) -> dict[str, StepWork]:
    """Return what the steps of one system do, by name, in order.

    config: of the checkpoint; pairs: the campaign's; packed_bytes: what the packed model weighs.
    """
    makers: Mapping[str, Callable[[_Shapes, Recipe], StepWork]] = {
        "corpus": _corpus,
        "finetune": _finetune,
        "merge": _merge,
        "sensitivity": _sensitivity,
        "awq": _awq,
        "calibrate": _calibrate,
        "pack": _pack,
        "segment": _segment,
        "decode": _decode,
        "bundle": _bundle,
    }
    quantize = recipe.quantize
    wanted = {
        "sensitivity": quantize.ranked is not None,
        "awq": quantize.awq is not None,
        "calibrate": quantize.moments is not None,
        "pack": bool(quantize.codecs),
    }
    shapes = _Shapes(config=config, pairs=pairs, packed_bytes=packed_bytes)
    return {name: make(shapes, recipe) for name, make in makers.items() if wanted.get(name, True)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shapes:
    config: dict[str, Any]
    pairs: int
    packed_bytes: int

    @property
    def plain_bytes(self) -> int:
        """Of the checkpoint in bfloat16."""
        return 2 * parameter_count(self.config)

    @property
    def layers(self) -> int:
        """Of the decoder."""
        return len({s.layer for s in tensors(self.config) if s.role == "attn.q"})

    @property
    def width(self) -> int:
        """Of the decoder."""
        return next(s.shape[1] for s in tensors(self.config) if s.role == "attn.q" and len(s.shape) > 1)

    @property
    def layer_bytes(self) -> int:
        """Of the decoder's largest layer in float32."""
        return 4 * sum(math.prod(s.shape) for s in tensors(self.config) if s.layer == 0 and "audio" not in s.role)

    @property
    def solvable(self) -> int:
        """Weights that can be packed."""
        return sum(math.prod(s.shape) for s in tensors(self.config) if s.packable)


def _corpus(shapes: _Shapes, recipe: Recipe) -> StepWork:
    seconds = sum(recipe.corpus.utterances.values()) * TRAIN_SECONDS
    return StepWork(step="corpus", audio_seconds=seconds, on_card=False)


def _finetune(shapes: _Shapes, recipe: Recipe) -> StepWork:
    config, options = shapes.config, recipe.finetune
    utterances = sum(recipe.corpus.utterances.values())
    steps = options.epochs * utterances / options.batch_size
    evaluated = (steps / options.save_every_steps + 1) * DEV_UTTERANCES * shapes.pairs * DEV_SECONDS / TRAIN_SECONDS
    passes = 3 if options.gradient_checkpointing else 2  # forward, gradients of activations, forward again
    adapters = adapter_parameters(config, options.roles, options.rank)
    forward = forward_flops(config, TRAIN_SECONDS)
    return StepWork(
        step="finetune",
        flops=forward * (passes * options.epochs * utterances + evaluated),
        training=True,
        memory_bytes=finetune_bytes(config, recipe),
        disk_bytes=adapters * (4 + 2 * 12),  # the adapters, and two checkpoints with Adam's moments
    )


def finetune_bytes(config: dict[str, Any], recipe: Recipe, seconds: float = 2 * TRAIN_SECONDS) -> int:
    """Return the memory of a training step: weights, adapters with gradients and Adam's moments, activations, logits.

    seconds: length of the utterances of a batch, all padded to the longest.
    """
    options, shapes = recipe.finetune, _Shapes(config=config, pairs=1, packed_bytes=0)
    _, tokens, text = utterance_positions(config, seconds)
    element = 2 if options.dtype == "bfloat16" else 4
    rows = options.batch_size * tokens
    inner = shapes.layer_bytes // 4 // shapes.width  # columns and rows of a layer's weights, per position
    kept = shapes.layers * shapes.width if options.gradient_checkpointing else shapes.layers * inner
    vocabulary = max(s.shape[0] for s in tensors(config) if s.role in ("embedding", "lm_head"))
    weights = element * parameter_count(config) + 16 * adapter_parameters(config, options.roles, options.rank)
    activations = rows * element * (kept + 2 * inner) + options.batch_size * text * vocabulary * 4 * 3
    return CONTEXT_BYTES + weights + activations


def _merge(shapes: _Shapes, recipe: Recipe) -> StepWork:
    return StepWork(
        step="merge",
        file_bytes=2.0 * shapes.plain_bytes,
        memory_bytes=CONTEXT_BYTES + shapes.layer_bytes,
        disk_bytes=shapes.plain_bytes,
        on_card=False,
    )


def _sensitivity(shapes: _Shapes, recipe: Recipe) -> StepWork:
    """L layers with a fork at each cost L + L (L + 1) / 2 runs of a layer (quantize/ranking/sweep.py)."""
    forward = forward_flops(shapes.config, DEV_SECONDS)
    _, tokens, _ = utterance_positions(shapes.config, 2 * DEV_SECONDS)
    forks = 8 * tokens * shapes.layers * shapes.width * 2
    return StepWork(
        step="sensitivity",
        flops=forward * (1 + (shapes.layers + 1) / 2) * DEV_UTTERANCES * shapes.pairs,
        solved=2.0 * shapes.solvable,
        file_bytes=shapes.plain_bytes + 2.0 * shapes.packed_bytes,
        memory_bytes=CONTEXT_BYTES + shapes.packed_bytes + shapes.layer_bytes + forks,
    )


def _awq(shapes: _Shapes, recipe: Recipe) -> StepWork:
    products = 2.0 * shapes.solvable * SAMPLED_POSITIONS * EXPONENTS
    return StepWork(
        step="awq",
        flops=forward_flops(shapes.config, DEV_SECONDS, predicted=0) * DEV_UTTERANCES + products,
        solved=float(EXPONENTS) * shapes.solvable,
        file_bytes=shapes.plain_bytes,
        memory_bytes=CONTEXT_BYTES + 4 * shapes.layer_bytes,
    )


def _calibrate(shapes: _Shapes, recipe: Recipe) -> StepWork:
    size = moments_size(shapes.config)
    return StepWork(
        step="calibrate",
        flops=3 * forward_flops(shapes.config, DEV_SECONDS) * DEV_UTTERANCES * shapes.pairs,
        training=True,
        file_bytes=shapes.plain_bytes + size.disk_bytes,
        memory_bytes=size.memory_bytes,
        disk_bytes=size.disk_bytes,
    )


def _pack(shapes: _Shapes, recipe: Recipe) -> StepWork:
    return StepWork(
        step="pack",
        solved=float(shapes.solvable),
        file_bytes=shapes.plain_bytes + shapes.packed_bytes,
        memory_bytes=CONTEXT_BYTES + shapes.layer_bytes,
        disk_bytes=shapes.packed_bytes,
    )


def _segment(shapes: _Shapes, recipe: Recipe) -> StepWork:
    needs = recipe.segment.about.needs_classifier
    return StepWork(
        step="segment", flops=BLIND_HOURS * 3600 * CLASSIFIER_FLOPS_PER_SECOND if needs else 0.0, memory_bytes=4 * 10**9
    )


def _decode(shapes: _Shapes, recipe: Recipe) -> StepWork:
    options = recipe.decode
    segments = shapes.pairs * BLIND_HOURS * 3600 / SEGMENT_SECONDS
    _, tokens, text = utterance_positions(shapes.config, SEGMENT_SECONDS)
    steps = segments / options.batch_size * text * 1.5  # until the longest of a batch ends
    cached = options.batch_size * options.num_beams * 2 * tokens * shapes.layers * 2 * shapes.width * 2
    return StepWork(
        step="decode",
        flops=segments * options.num_beams * forward_flops(shapes.config, SEGMENT_SECONDS),
        weight_bytes=steps * shapes.packed_bytes,
        file_bytes=shapes.packed_bytes,
        memory_bytes=CONTEXT_BYTES + int(1.2 * shapes.packed_bytes) + cached,
    )


def _bundle(shapes: _Shapes, recipe: Recipe) -> StepWork:
    """The bundle, its archive and a check of both read and write the model five times."""
    return StepWork(
        step="bundle",
        file_bytes=5.0 * shapes.packed_bytes,
        memory_bytes=200_000_000,
        disk_bytes=2 * shapes.packed_bytes,
        on_card=False,
    )


# --- time ---


def step_seconds(work: StepWork, device: Device, host: Device) -> float | None:
    """Return how long a step takes on a device, None where its memory is too small.

    host: the processor beside a card, which does what cards do not.
    """
    runs_on = device if work.on_card else host
    if work.memory_bytes > runs_on.memory_bytes:
        return None
    share = (TRAINING_SHARE if work.training else PRODUCT_SHARE) if runs_on.is_card else 1.0
    computing = work.flops / (share * runs_on.flops_per_second)
    reading = work.weight_bytes / ((BANDWIDTH_SHARE if runs_on.is_card else 1.0) * runs_on.bytes_per_second)
    solved = BANDWIDTH_SHARE / SOLVER_BYTES if runs_on.is_card else SOLVED_PER_CORE_BYTE
    solving = work.solved / (solved * runs_on.bytes_per_second)
    cores = max(1.0, host.bytes_per_second / CORE_BYTES)
    decoding = work.audio_seconds / (DECODED_PER_CORE_SECOND * cores)
    return computing + reading + solving + decoding + work.file_bytes / DISK_BYTES_PER_SECOND


def duration_text(seconds: float | None) -> str:
    """Return a forecast duration with no more digits than it deserves: `40 s`, `12 min`, `3.5 h`, `9 d`."""
    if seconds is None:
        return "too small"
    for unit, size, most in (("s", 1, 90), ("min", 60, 90 * 60), ("h", 3600, 48 * 3600)):
        if seconds < most:
            value = seconds / size
            return f"{value:.1f} {unit}" if unit == "h" and value < 10 else f"{max(1, round(value))} {unit}"
    return f"{round(seconds / 86400)} d"


def cost_lines(works: Mapping[str, StepWork], devices: Iterable[Device], host: Device) -> list[str]:
    """Return the forecast as lines: a row a step, a column a device, then memory and disk; the last row sums up."""
    columns = tuple(devices)
    rows = [["step", *(device.name for device in columns), "memory", "disk"]]
    totals: list[float | None] = [0.0 for _ in columns]
    for name, work in works.items():
        seconds = [step_seconds(work, device, host) for device in columns]
        totals = [None if t is None or s is None else t + s for t, s in zip(totals, seconds, strict=True)]
        sizes = [f"{size / GIB:.1f} GiB" if size >= GIB / 20 else "-" for size in (work.memory_bytes, work.disk_bytes)]
        rows.append([name, *map(duration_text, seconds), *sizes])
    disk = sum(work.disk_bytes for work in works.values())
    rows.append(["together", *map(duration_text, totals), "", f"{disk / GIB:.1f} GiB"])
    return aligned(rows).splitlines()
