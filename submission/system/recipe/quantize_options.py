"""Options of how weights are stored: codecs by role, calibration, recovery, a target of bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from submission.model.codecs import Codec, parse_codec
from submission.model.solvers import parse_solver, refuse_unserved
from submission.system.campaign import UNITS, size_bytes
from submission.system.recipe.requirement import require

MOST_OVERRIDES = 100
"""A recipe is data of somebody else once it lies in a bundle, and each override is resolved against every weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """Another codec for a role in some layers only."""

    role: str
    """Role or prefix of roles, `mlp`."""
    layers: tuple[int, ...] | Literal["first", "middle", "last", "random", "sensitivity"]
    """Layer numbers from 0, or how to choose `count` of them; `sensitivity` takes those whose loss rises least."""
    codec: Annotated[Codec, parse_codec]
    count: int | Literal["all", "fit"] = "all"
    """How many layers to choose; `fit` is the smallest number that meets the campaign's limit."""
    seed: int | None = None
    """Which random choice it is."""

    def __post_init__(self) -> None:
        require(
            (self.seed is not None) == (self.layers == "random"),
            'seed: belongs to layers = "random" and to no other; write both or neither',
        )
        if isinstance(self.layers, tuple):
            require(bool(self.layers), "layers: empty; name at least one layer")
            require(self.count == "all", f"count: {self.count!r} contradicts a list of layers; leave it out")
            require(
                min(self.layers) >= 0 and len(set(self.layers)) == len(self.layers),
                "layers: negative or repeated; number layers from 0, each once",
            )
        else:
            require(
                self.count != "all",
                f'layers: {self.layers!r} needs a count; write count = 4 or count = "fit"',
            )
            require(
                self.count == "fit" or (isinstance(self.count, int) and self.count > 0),
                f"count: {self.count} is not positive; write at least 1",
            )


MOST_EXPONENTS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AwqOptions:
    """Activation-aware scaling of channels before they are packed (Lin et al. 2024), folded into the weights.

    It is calibrated on the dev set of ACL 60/60; of several pairs, each utterance takes the prompt of one, in turn.
    """

    pairs: tuple[str, ...]
    """Language pairs whose prompts, and targets, the model reads: `en-de`."""
    targets: bool
    """Whether the translation follows the prompt; without, only the source is read."""
    utterances: int
    """How many of the dev set; 0 takes all."""
    seed: int
    """Which of them, where not all are taken."""
    exponents: int = 20
    """How many exponents between 0 (no scaling) and 1 are tried for each group of weights."""

    def __post_init__(self) -> None:
        require(bool(self.pairs), 'pairs: empty; write e.g. ["en-de"]')
        require(self.utterances >= 0, f"utterances: {self.utterances} is negative; write 0 for all there are")
        require(self.exponents > 1, f"exponents: {self.exponents} leaves nothing to choose from; write e.g. 20")
        require(
            self.exponents <= MOST_EXPONENTS, f"exponents: {self.exponents} is beyond {MOST_EXPONENTS}; write e.g. 20"
        )


LEAST_MOMENT_UTTERANCES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentsOptions:
    """Second moments of inputs and of gradients, by which error feedback weighs errors; the translation is read too."""

    pairs: tuple[str, ...]
    """Language pairs of the utterances: `en-de`."""
    seed: int
    """Which utterances, and which labels are drawn from the model for the gradients."""
    source: Literal["train", "dev"] = "train"
    """The corpus that they are drawn from: the training corpora, or ACL 60/60 dev."""
    utterances: int = 256
    """How many inputs are measured on; 0 takes all."""
    gradient_utterances: int = 32
    """How many of these gradients are measured on."""
    fisher: bool = True
    """Whether gradients are measured. Without, no backward pass is needed, and the divergence at the same bytes is
    about twice as large."""

    def __post_init__(self) -> None:
        require(bool(self.pairs), 'pairs: empty; write e.g. ["en-de"]')
        enough = self.utterances >= LEAST_MOMENT_UTTERANCES or self.utterances == 0
        least = f"at least {LEAST_MOMENT_UTTERANCES}, or 0 for all there are"
        require(enough, f"utterances: {self.utterances} do not determine second moments; write {least}")
        require(
            self.gradient_utterances > 0,
            f"gradient_utterances: {self.gradient_utterances} is not positive; write e.g. 32, or fisher = false",
        )
        require(
            not self.utterances or self.gradient_utterances <= self.utterances,
            f"gradient_utterances: {self.gradient_utterances} of {self.utterances} utterances; write fewer",
        )


HELD_OUT_SHARE = 8
"""One of so many utterances of recovery is not tuned on: it decides whether tuning helped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryOptions:
    """Tuning of what costs no bytes, scales, norms and biases, towards the model before packing; codes are fixed.

    Utterances are those of the training corpora; the translation is read too.
    """

    pairs: tuple[str, ...]
    """Language pairs of the utterances: `en-de`."""
    utterances: int
    """Stretches of audio, each with its translations by all pairs, an eighth of them held out; 0 takes all."""
    steps: int
    """Steps of the optimizer (Adam)."""
    batch_size: int
    """Utterances in a step."""
    learning_rate: float
    """Largest relative change of a number in a step, about, where the divergence at the start is 1 nat; else times its
    root. It rises over a twentieth of the steps and falls to 0."""
    seed: int
    """Which utterances, and in which order."""

    def __post_init__(self) -> None:
        require(bool(self.pairs), 'pairs: empty; write e.g. ["en-de"]')
        for name in ("steps", "batch_size"):
            require(getattr(self, name) > 0, f"{name}: {getattr(self, name)} is not positive; write at least 1")
        require(
            0 < self.learning_rate < 1,
            f"learning_rate: {self.learning_rate} is no relative change; write e.g. 0.005",
        )
        require(
            self.utterances == 0 or self.utterances >= 2 * HELD_OUT_SHARE,
            f"utterances: of {self.utterances}, one in {HELD_OUT_SHARE} leaves less than two held out; "
            f"write at least {2 * HELD_OUT_SHARE}, or 0 for all there are",
        )


AS_PRIMARY, LIMIT = "as primary", "limit"


def parse_target(text: str) -> int | None:
    """Return the bytes of a target that is a size, None for `limit` and `as primary`; ValueError for anything else."""
    if text in (AS_PRIMARY, LIMIT):
        return None
    try:
        return size_bytes(text)
    except ValueError as error:
        choices = f"{LIMIT!r}, {AS_PRIMARY!r} or a size with its unit ({', '.join(UNITS)})"
        raise ValueError(f"target: {text!r} is no size; write {choices}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeOptions:
    """How each weight is stored."""

    solver: Annotated[str, parse_solver]
    """How codes, scales and zero-points are found: a name of `submission.model.solvers.SOLVERS`."""
    codecs: dict[str, Annotated[Codec, parse_codec]]
    """Role or prefix of roles -> codec; the longest prefix wins, `*` is every weight that can be packed. What no rule
    reaches is kept as it is; without any rule nothing is packed."""
    overrides: tuple[Override, ...] = ()
    drop: tuple[str, ...] = ()
    """Parts of the base model that a system for speech does without, by the first word of their roles: `vision`. Their
    tensors are not in the packed model."""
    awq: AwqOptions | None = None
    moments: MomentsOptions | None = None
    """What codes are weighed by, for solvers that read it; without, they see the weights alone."""
    recovery: RecoveryOptions | None = None
    """What of the packed model is tuned afterwards; without, it stays as it was packed."""
    target: str | None = None
    """What the model folder may weigh, for codecs that take a budget of bytes: a size with its unit (`4 GB`), `limit`
    (the campaign's) or `as primary` (what that recipe weighs on the same campaign)."""
    allow_lost_weights: bool = False
    """Whether a model is built although of some weights hardly anything is left: relative squared error over 0.5."""

    def __post_init__(self) -> None:
        named = [(f"codecs.{role}", codec) for role, codec in self.codecs.items()]
        named += [(f"overrides: {override.role}", override.codec) for override in self.overrides]
        refuse_unserved(self.solver, named)
        if self.target is not None:
            parse_target(self.target)
        require(len(set(self.drop)) == len(self.drop), f"drop: {', '.join(self.drop)} names a part twice; name it once")
        many = f"overrides: {len(self.overrides)} are more than {MOST_OVERRIDES}; name layers in one override"
        require(len(self.overrides) <= MOST_OVERRIDES, many)
        by_sensitivity = sum(override.layers == "sensitivity" for override in self.overrides)
        require(
            by_sensitivity <= 1,
            "overrides: more than one chooses its layers by sensitivity; give the others a list of layers",
        )

    @property
    def ranked(self) -> Override | None:
        """The override whose layers a sensitivity analysis chooses, if there is one."""
        return next((override for override in self.overrides if override.layers == "sensitivity"), None)
