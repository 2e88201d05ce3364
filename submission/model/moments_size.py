"""What measuring second moments of a model takes in memory and on disk, from its configuration alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from submission.model.families import audio_positions, family_of, tensors, tied_heads
from submission.model.families.tensors import TensorSpec

FLOAT_BYTES = 4
BATCH_SIZE = 4
"""Utterances that run through a layer at a time."""
LONGEST_TRANSLATION = 256
"""Tokens, as many as recipes let decoding generate."""
LOGITS_BYTES = 256 << 20
"""Of the logits that are held at a time."""
LOGITS_HELD = 4
"""Tensors of their size: logits, their softmax, its logarithm and their gradient; one more where a cap stands before
them."""
OTHER_BYTES = 3 << 29
"""What the libraries take by themselves, .9 GiB as measured, and the features of some hundred utterances."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentsSize:
    """Bytes that the calibration of a model takes."""

    memory_bytes: int
    """At the largest of its parts: a layer with its second moments and activations, what lies around them, the head."""
    disk_bytes: int
    """Of all moments, which stay."""
    sum_bytes: int
    """Of the second moments of a layer while they are summed, at most: what several processes write for one another."""
    state_bytes: dict[str, int]
    """Stack -> bytes of an utterance's hidden states at one point of it, at most."""
    depths: dict[str, int]
    """Stack -> number of its layers."""

    def activation_bytes(self, utterances: int, traced: int) -> int:
        """Return the bytes on disk between the layers, at most, while moments are measured; traced: for gradients.

        Forward, a layer reads a point and writes another; backward, it reads a point and a gradient and writes another.
        The masks of an utterance and what the head reads of it are less than one more point.
        """
        most = outputs = kept = 0  # outputs, kept: of the stacks before, for each utterance
        for stack, size in self.state_bytes.items():
            blocks = layer_blocks(self.depths[stack])
            forward = (outputs + 2 * size) * utterances + (kept + len(blocks) * size) * traced
            backward = (outputs + kept + (len(blocks[0]) + 2) * size) * traced
            most = max(most, forward, backward)
            outputs, kept = outputs + size, kept + len(blocks) * size
        return most + max(self.state_bytes.values()) * utterances


def layer_blocks(depth: int) -> list[range]:
    """Return the layers of a stack in blocks; the inputs of a block's first layer stay on disk for the backward pass.

    Those of its other layers are computed again when that pass comes to the block. Each block is a layer shorter than
    the one before it, since the inputs of one more block are on disk with it: at most as many points are stored as the
    first block has layers, about the root of twice the depth, and no other blocks need fewer.
    """
    longest = next(length for length in range(1, depth + 1) if length * (length + 1) >= 2 * depth)
    blocks = [range(longest)]
    while blocks[-1].stop < depth:
        start = blocks[-1].stop
        blocks.append(range(start, min(start + longest - len(blocks), depth)))
    return blocks


def longest_utterance(config: dict[str, Any]) -> tuple[int, int]:
    """Return the frames of the longest audio that the model takes, and its tokens: audio, prompt and translation."""
    family = family_of(config)
    frames = family.window_frames(config)
    return frames, audio_positions(config, frames) + family.prompt_tokens + LONGEST_TRANSLATION


def input_keys(config: dict[str, Any]) -> dict[str, str]:
    """Return weight name -> key of its input, for all that can be packed; weights that read one input share a key.

    A tied head is among them by its own name: what it reads is not what the embedding is calibrated by.
    """
    family = family_of(config)
    shared = {target: group.targets[0] for group in family.smoothing_groups(config) for target in group.targets}
    names = [*(spec.name for spec in tensors(config) if spec.packable), *family.tied_weights(config)]
    return {name: shared.get(name, name).removesuffix(".weight") for name in names}


def moments_size(config: dict[str, Any]) -> MomentsSize:
    """Return what the moments of a model of this configuration take, of utterances as long as it takes them."""
    specs, keys, family = tensors(config), input_keys(config), family_of(config)
    tied, (frames, tokens) = tied_heads(config), longest_utterance(config)
    measured = [*(spec for spec in specs if spec.packable), *tied]
    widths = {keys[spec.name]: spec.shape[1] for spec in measured}
    rows = sum(spec.shape[0] for spec in measured)
    parts = _outside_bytes([*specs, *tied], capped=family.logit_cap(config) is not None)
    sums, depths = [0], {}
    for stack in family.stacks:
        inside = [s for s in specs if stack.layers is not None and s.name.startswith(f"{stack.layers}.")]
        if not inside:
            continue
        positions = stack.positions(frames, tokens)
        numbers = {spec.layer for spec in inside}
        layers = [[s for s in inside if s.layer == number] for number in numbers]
        parts += [_layer_bytes(layer, keys, positions) for layer in layers]
        sums += [_sum_bytes(layer, keys) for layer in layers]
        depths[stack.name] = len(numbers)
    return MomentsSize(
        memory_bytes=max(parts) + OTHER_BYTES,
        disk_bytes=FLOAT_BYTES * (sum(width * (width + 1) // 2 + 2 * width for width in widths.values()) + rows),
        sum_bytes=max(sums),
        state_bytes=state_bytes(config, frames, tokens),
        depths=depths,
    )


def state_bytes(config: dict[str, Any], frames: int, tokens: int) -> dict[str, int]:
    """Return stack of layers -> bytes of the hidden states of one utterance at one point of it, in float32.

    frames: of its features; tokens: of its text, with those that stand for audio.
    """
    family, columns = family_of(config), {spec.name: spec.shape[-1] for spec in tensors(config)}
    hidden = {group.stack: columns[group.targets[0]] for group in reversed(family.smoothing_groups(config))}
    layered = (stack for stack in family.stacks if stack.layers is not None)
    return {stack.name: FLOAT_BYTES * stack.positions(frames, tokens) * hidden[stack.name] for stack in layered}


def outside_bytes(config: dict[str, Any]) -> int:
    """Return the memory of what lies around a model's layers, the head apart, in float32 while it is read."""
    return _outside_bytes(tensors(config), capped=False)[0]


def _sum_bytes(specs: list[TensorSpec], keys: dict[str, str]) -> int:
    """Return the bytes of the second moments of a layer."""
    widths = {keys[spec.name]: spec.shape[1] for spec in specs if spec.packable}
    return FLOAT_BYTES * sum(width**2 for width in widths.values())


def _layer_bytes(specs: list[TensorSpec], keys: dict[str, str], positions: int) -> int:
    """Return the memory of a layer: while it runs, or while the factor of its widest second moment is made."""
    linears = [spec for spec in specs if spec.packable]
    weights = FLOAT_BYTES * sum(math.prod(spec.shape) for spec in specs)
    activations = FLOAT_BYTES * BATCH_SIZE * positions * sum(sum(spec.shape) for spec in linears)
    widest = max(spec.shape[1] for spec in linears)
    return _sum_bytes(specs, keys) + max(weights + activations, (2 * FLOAT_BYTES + FLOAT_BYTES) * widest**2)


def _outside_bytes(specs: list[TensorSpec], *, capped: bool) -> list[int]:
    """Return the memory of what lies around the layers and, where it is apart, of the head; capped: its logits are."""
    outside = [spec for spec in specs if spec.layer is None]
    parts, logits = [], (LOGITS_HELD + capped) * LOGITS_BYTES
    for head in (False, True):
        sizes = [math.prod(spec.shape) for spec in outside if (spec.role == "lm_head") is head]
        if sizes:  # a tensor is in memory twice while it is read, in bfloat16 and in float32
            parts.append(FLOAT_BYTES * sum(sizes) + max(2 * max(sizes), logits if head else 0))
    return parts
