"""The recipe: what the participant chooses. One TOML file in `submission/recipes/`.

A recipe may extend another (`extends = "primary"`) and may say what differs on one campaign in a table
`[campaign.<name>]` that mirrors the whole: `[campaign.miniature.finetune]`. The order of precedence is, from
weakest: the extended recipe, its table for the campaign, this recipe, this recipe's table for the campaign.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from submission.codec import Codec
from submission.errors import UserError
from submission.schema import locate, merged, parse, read_toml

FOLDER = Path(__file__).parent / "recipes"


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """Under which name the outputs are uploaded."""

    team: str
    kind: Literal["primary", "contrastive"]
    condition: Literal["constrained", "unconstrained"]
    """`constrained`: ACL 60/60 is the only training data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One training corpus: a folder below `corpora/` of the data folder."""

    name: str
    format: str
    """Layout of the folder; `train` lists the layouts that it reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusOptions:
    """Which utterances to train on."""

    sources: tuple[Source, ...]
    utterances: dict[str, int]
    """Number of utterances per target language; 0 takes all there are."""
    seed: int
    max_skipped_share: float = 0.02
    """Largest share of unusable utterances that does not stop the run."""

    def __post_init__(self) -> None:
        _require(bool(self.sources), "sources: empty; name at least one corpus")
        _require(all(n >= 0 for n in self.utterances.values()), "utterances: negative; write 0 for all there are")
        _require(
            0 <= self.max_skipped_share < 1,
            f"max_skipped_share: {self.max_skipped_share} is no share; write a number from 0 to below 1",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneOptions:
    """LoRA fine-tuning; the defaults' source is Table 7 of the Diet-KIT paper."""

    roles: tuple[str, ...]
    """Roles of the linears that get an adapter; a prefix (`attn`) stands for all below it."""
    rank: int
    alpha: int
    dropout: float
    learning_rate: float
    epochs: int
    batch_size: int
    """Utterances per optimizer step."""
    warmup_ratio: float
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: float
    dtype: Literal["bfloat16", "float32"]
    gradient_checkpointing: bool
    log_every_steps: int
    save_every_steps: int
    """Steps between checkpoints, from which a killed run goes on, and between evaluations on dev."""
    seed: int

    def __post_init__(self) -> None:
        for name in ("rank", "alpha", "epochs", "batch_size", "log_every_steps", "save_every_steps"):
            _require(getattr(self, name) > 0, f"{name}: {getattr(self, name)} is not positive; write at least 1")
        _require(self.learning_rate > 0, f"learning_rate: {self.learning_rate} is not positive; write e.g. 1e-6")
        _require(self.weight_decay >= 0, f"weight_decay: {self.weight_decay} is negative; write 0 or more")
        for name in ("dropout", "warmup_ratio"):
            _require(
                0 <= getattr(self, name) < 1,
                f"{name}: {getattr(self, name)} is no share; write a number from 0 to below 1",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """Another codec for a role in some layers only."""

    role: str
    """Role or prefix of roles, `mlp`."""
    layers: tuple[int, ...] | Literal["first", "middle", "last"]
    """Layer numbers from 0, or how to choose `count` of them."""
    codec: Codec
    count: int | Literal["all", "fit"] = "all"
    """How many layers to choose; `fit` is the smallest number that meets the campaign's limit."""

    def __post_init__(self) -> None:
        if isinstance(self.layers, tuple):
            _require(bool(self.layers), "layers: empty; name at least one layer")
            _require(self.count == "all", f"count: {self.count!r} contradicts a list of layers; leave it out")
            _require(
                min(self.layers) >= 0 and len(set(self.layers)) == len(self.layers),
                "layers: negative or repeated; number layers from 0, each once",
            )
        else:
            _require(
                self.count != "all",
                f'layers: {self.layers!r} needs a count; write count = 4 or count = "fit"',
            )
            _require(
                self.count == "fit" or self.count > 0,
                f"count: {self.count} is not positive; write at least 1",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeOptions:
    """How each weight is stored."""

    solver: Literal["hqq"]
    """How codes, scales and zero-points are found."""
    codecs: dict[str, Codec]
    """Role or prefix of roles -> codec; the longest prefix wins, `*` is every weight that can be packed."""
    overrides: tuple[Override, ...] = ()

    def __post_init__(self) -> None:
        _require(
            bool(self.codecs),
            "codecs: empty; write at least '*' = {kind = \"affine\", bits = 4, group_size = 64}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentOptions:
    """How recordings without given segments are cut; the defaults of SHAS."""

    method: Literal["shas", "fixed"]
    max_seconds: float
    min_seconds: float
    threshold: float
    """Speech probability from which a frame stays when a segment is trimmed."""
    inference_times: int = 1
    """Shifted passes of the classifier that are averaged."""
    batch_size: int = 14
    """Windows per batch; changes the speed, not the result."""

    def __post_init__(self) -> None:
        _require(
            0 <= self.min_seconds < self.max_seconds,
            f"min_seconds: {self.min_seconds} is not below max_seconds {self.max_seconds}; exchange them",
        )
        _require(0 < self.threshold < 1, f"threshold: {self.threshold} is no probability; write e.g. 0.5")
        for name in ("inference_times", "batch_size"):
            _require(getattr(self, name) > 0, f"{name}: {getattr(self, name)} is not positive; write at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeOptions:
    """How segments become hypotheses."""

    dtype: Literal["bfloat16", "float32"]
    num_beams: int
    max_new_tokens: int
    batch_size: int

    def __post_init__(self) -> None:
        for name in ("num_beams", "max_new_tokens", "batch_size"):
            _require(getattr(self, name) > 0, f"{name}: {getattr(self, name)} is not positive; write at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that the participant chooses."""

    name: str
    description: str
    upload: Upload
    corpus: CorpusOptions
    finetune: FinetuneOptions
    quantize: QuantizeOptions
    segment: SegmentOptions
    decode: DecodeOptions


def _resolved(path: Path, campaign: str | None, seen: tuple[str, ...]) -> dict[str, Any]:
    """Return a recipe's table with what it extends and, for a campaign, the campaign's tables laid in."""
    if path.stem in seen:
        raise UserError(
            f"recipe {path.name}: extends",
            f"goes in a circle: {' -> '.join((*seen, path.stem))}",
            "let one of them extend nothing",
        )
    table = read_toml(path)
    overlays = table.pop("campaign", {})
    parent = table.pop("extends", None)
    if parent is not None and not isinstance(parent, str):
        raise UserError(
            f"recipe {path.name}: extends",
            f"expected a text, got {parent!r}",
            'write e.g. extends = "primary"',
        )
    if not isinstance(overlays, dict) or not all(isinstance(o, dict) for o in overlays.values()):
        raise UserError(
            f"recipe {path.name}: campaign",
            "expected tables by campaign",
            "write e.g. [campaign.miniature.finetune]",
        )
    beside = path.parent / f"{parent}.toml"
    base = (
        {}
        if parent is None
        else _resolved(beside if beside.is_file() else locate(parent, FOLDER, "recipe"), campaign, (*seen, path.stem))
    )
    base.pop("name", None)
    return merged(merged(base, table), overlays.get(campaign, {}))


def read_recipe(name: str, campaign: str) -> Recipe:
    """Return the recipe of a shipped name (`primary`) or of a TOML file, as it stands for a campaign.

    The tables of the file for other campaigns are checked too, so that a mistake never waits for the day of
    the real run. Raises UserError naming file, key, what was expected and the nearest valid name.
    """
    path = locate(name, FOLDER, "recipe")
    for other in sorted(read_toml(path).get("campaign", {})):
        _parsed(path, other)
    return _parsed(path, campaign)


def _parsed(path: Path, campaign: str) -> Recipe:
    table = _resolved(path, campaign, ())
    table.setdefault("name", path.stem)
    return parse(Recipe, table, f"recipe {path.name} (campaign {campaign})")
