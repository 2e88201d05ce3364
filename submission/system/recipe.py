"""The recipe: what the participant chooses. `recipe_files.py` reads it from TOML."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Annotated, Literal

from submission.errors import UserError
from submission.model.codecs import Codec, parse_codec
from submission.model.solvers import parse_solver, refuse_unserved
from submission.system.campaign import UNITS, size_bytes
from submission.system.corpus_formats import CORPUS_FORMATS
from submission.system.fallbacks import FALLBACKS
from submission.system.registry import SEGMENTATION_METHODS, SegmentationMethod, SegmentationName
from submission.system.schema import nearest

MOST_SOURCES, MOST_LANGUAGES = 100, 100
MOST_NUMBER = 10**9
"""Of utterances, seeds, steps: a recipe is data of somebody else once it lies in a bundle, so every number ends."""


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

    def __post_init__(self) -> None:
        plain = re.fullmatch(r"[A-Za-z0-9-]+", self.team)
        _require(bool(plain), f"team: {self.team!r} goes into a model name; use letters, digits and hyphens only")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One training corpus: a folder of the data folder."""

    name: str
    """What reports and utterances call it."""
    format: str
    """Layout of the folder, a name in `submission.system.corpus_formats`."""
    folder: str = ""
    """Where it lies below the data folder; empty for `corpora/<name>`."""
    utterances: dict[str, int] = field(default_factory=dict)
    """Target language -> how many of its utterances come from this corpus; the other corpora share the rest."""
    files: tuple[str, ...] = ()
    """Format hub: files or patterns below the folder, `data/train-*.parquet`."""
    columns: dict[str, str] = field(default_factory=dict)
    """Format hub: `audio`, `source` and, where the dataset has them, `id` and `recording` -> name of the column."""
    targets: dict[str, str] = field(default_factory=dict)
    """Format hub: target language -> name of the column of its translations."""

    def __post_init__(self) -> None:
        plain = self.name and "/" not in self.name and self.name not in (".", "..")
        _require(bool(plain), f"name: {self.name!r} is no plain name; write one, and the place as folder")
        place = PurePosixPath(self.folder)
        inside = not place.is_absolute() and ".." not in place.parts
        _require(inside, f"folder: {self.folder!r} leaves the data folder; name a folder below it")
        known = self.format in CORPUS_FORMATS
        _require(known, f"format: {self.format!r} is unknown; {nearest(self.format, CORPUS_FORMATS)}")
        self._check_options()

    def _check_options(self) -> None:
        """Require the options that the format reads, and refuse those that it would ignore."""
        read = CORPUS_FORMATS[self.format].options
        for name in ("files", "columns", "targets"):
            given = bool(getattr(self, name))
            _require(name in read or not given, f"{name}: format {self.format!r} reads no such option; leave it out")
            _require(name not in read or given, f"{name}: missing, which format {self.format!r} needs; add it")
        for pattern in self.files:
            place = PurePosixPath(pattern)
            inside = not place.is_absolute() and ".." not in place.parts
            _require(inside, f"files: {pattern!r} leaves the corpus folder; name files below it")
        if unknown := sorted(self.columns.keys() - {"audio", "source", "id", "recording"}):
            _require(False, f"columns.{unknown[0]}: unknown; known: audio, source, id, recording")
        if self.columns and (missing := sorted({"audio", "source"} - self.columns.keys())):
            _require(False, f'columns.{missing[0]}: missing; write {missing[0]} = "name of the column"')

    @property
    def part(self) -> str:
        """The folder, relative to the data folder, spelled in one way."""
        return PurePosixPath(self.folder or f"corpora/{self.name}").as_posix()

    @property
    def is_acl6060(self) -> bool:
        """Whether it is ACL 60/60, the only data of the constrained condition."""
        return CORPUS_FORMATS[self.format].is_acl6060


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusOptions:
    """Which utterances to train on."""

    sources: tuple[Source, ...]
    utterances: dict[str, int]
    """Number of utterances per target language; 0 takes all there are."""
    seed: int
    max_skipped_share: float = 0.02
    """Largest share of unusable utterances that does not stop the run."""
    scale: float = 1.0
    """What every number of utterances is multiplied with: 0.1 for a tenth of the sample."""
    quotas: dict[str, dict[str, int]] = field(default_factory=dict)
    """Name of a corpus -> target language -> how many of its utterances come from it, in place of the number in
    `sources`: a recipe that extends another changes one number without repeating its corpora."""
    allow_fewer: bool = False
    """Whether a corpus that holds fewer utterances than requested is taken as it is."""
    languages: dict[str, str] = field(default_factory=dict)
    """Names in the prompt of target languages that are trained though the campaign does not have them."""
    held_out_recordings: int = 0
    """How many recordings of ACL 60/60 dev are kept from training where the rest of it is trained on."""

    def __post_init__(self) -> None:
        _require(bool(self.sources), "sources: empty; name at least one corpus")
        few = len(self.sources) <= MOST_SOURCES and len(self.utterances) <= MOST_LANGUAGES
        _require(few, f"sources: more than {MOST_SOURCES}, or more than {MOST_LANGUAGES} languages; name fewer")
        names = [source.name for source in self.sources]
        _require(len(set(names)) == len(names), f"sources: {names} repeats a name; give each its own")
        _require(all(n >= 0 for n in self.utterances.values()), "utterances: negative; write 0 for all there are")
        _require(self.scale > 0, f"scale: {self.scale} is not positive; write e.g. 0.1")
        for name in sorted(self.quotas.keys() - set(names)):
            _require(False, f"quotas.{name}: no corpus of that name; {nearest(name, names)}")
        sources = self._with_quotas()
        for source in sources:
            self._check_quotas(source, sources)
        _require(
            self.held_out_recordings >= 0,
            f"held_out_recordings: {self.held_out_recordings} is negative; write 0 or more",
        )
        _require(
            0 <= self.max_skipped_share < 1,
            f"max_skipped_share: {self.max_skipped_share} is no share; write a number from 0 to below 1",
        )

    def _with_quotas(self) -> tuple[Source, ...]:
        """Return the corpora with the numbers of `quotas` in place of their own."""
        return tuple(
            replace(source, utterances=source.utterances | self.quotas.get(source.name, {})) for source in self.sources
        )

    def _check_quotas(self, source: Source, sources: tuple[Source, ...]) -> None:
        for language, count in source.utterances.items():
            where = f"sources: {source.name}: utterances.{language}"
            _require(count > 0, f"{where}: {count} is not positive; leave it out to share the rest")
            _require(language in self.utterances, f"{where}: not in corpus.utterances; write the total there")
            given = sum(other.utterances.get(language, 0) for other in sources)
            total = self.utterances[language]
            _require(
                not total or given <= total,
                f"{where}: the corpora give {given}, corpus.utterances requests {total} in all; raise that number",
            )

    def scaled(self) -> CorpusOptions:
        """Return the same sample without `scale` and `quotas`: both are in the numbers of the languages and corpora."""

        def number(count: int) -> int:
            return max(1, round(count * self.scale)) if count else 0

        sources = tuple(
            replace(source, utterances={language: number(count) for language, count in source.utterances.items()})
            for source in self._with_quotas()
        )
        totals = {
            language: max(number(count), sum(source.utterances.get(language, 0) for source in sources)) if count else 0
            for language, count in self.utterances.items()
        }
        return replace(self, sources=sources, utterances=totals, scale=1.0, quotas={})

    def trained_languages(self, campaign_languages: dict[str, str]) -> dict[str, str]:
        """Return code -> name in the prompt for every target language that is trained, sorted by code.

        campaign_languages: the same of the campaign's pairs. UserError where a language has a number and no name.
        """
        named = self.languages | campaign_languages
        if unnamed := sorted(self.utterances.keys() - named.keys()):
            raise UserError(
                f"recipe: corpus.utterances.{unnamed[0]}",
                f"a language that the campaign does not have ({', '.join(sorted(campaign_languages))}) and has no name",
                f'write its name in the prompt under [corpus.languages], {unnamed[0]} = "..."',
            )
        return {code: named[code] for code in sorted(self.utterances)}


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
    """Utterances per optimizer step, over all devices."""
    warmup_ratio: float
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: float
    dtype: Literal["bfloat16", "float32"]
    gradient_checkpointing: bool
    log_every_steps: int
    save_every_steps: int
    """Steps between checkpoints, from which a killed run resumes, and between evaluations on dev."""
    seed: int
    bleu_utterances: int = 32
    """Dev utterances per target language that are translated at each evaluation, for BLEU; 0 for none."""
    keep: Literal["last", "best"] = "last"
    """Which adapters are kept: those of the last step, or of the checkpoint with the lowest dev loss."""

    def __post_init__(self) -> None:
        for name in ("rank", "alpha", "epochs", "batch_size", "log_every_steps", "save_every_steps"):
            _require(getattr(self, name) > 0, f"{name}: {getattr(self, name)} is not positive; write at least 1")
        _require(
            self.save_every_steps % self.log_every_steps == 0,
            f"save_every_steps: {self.save_every_steps} is no multiple of log_every_steps {self.log_every_steps}, so a "
            "resumed run would log other means than an uninterrupted one; write a multiple",
        )
        _require(self.learning_rate > 0, f"learning_rate: {self.learning_rate} is not positive; write e.g. 1e-6")
        for name in ("weight_decay", "bleu_utterances"):
            _require(getattr(self, name) >= 0, f"{name}: {getattr(self, name)} is negative; write 0 or more")
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
    layers: tuple[int, ...] | Literal["first", "middle", "last", "random", "sensitivity"]
    """Layer numbers from 0, or how to choose `count` of them; `sensitivity` takes those whose loss rises least."""
    codec: Annotated[Codec, parse_codec]
    count: int | Literal["all", "fit"] = "all"
    """How many layers to choose; `fit` is the smallest number that meets the campaign's limit."""
    seed: int | None = None
    """Which random choice it is."""

    def __post_init__(self) -> None:
        _require(
            (self.seed is not None) == (self.layers == "random"),
            'seed: belongs to layers = "random" and to no other; write both or neither',
        )
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
                self.count == "fit" or (isinstance(self.count, int) and self.count > 0),
                f"count: {self.count} is not positive; write at least 1",
            )


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
        _require(bool(self.pairs), 'pairs: empty; write e.g. ["en-de"]')
        _require(self.utterances >= 0, f"utterances: {self.utterances} is negative; write 0 for all there are")
        _require(self.exponents > 1, f"exponents: {self.exponents} leaves nothing to choose from; write e.g. 20")


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
        _require(bool(self.pairs), 'pairs: empty; write e.g. ["en-de"]')
        enough = self.utterances >= LEAST_MOMENT_UTTERANCES or self.utterances == 0
        least = f"at least {LEAST_MOMENT_UTTERANCES}, or 0 for all there are"
        _require(enough, f"utterances: {self.utterances} do not determine second moments; write {least}")
        _require(
            self.gradient_utterances > 0,
            f"gradient_utterances: {self.gradient_utterances} is not positive; write e.g. 32, or fisher = false",
        )
        _require(
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
    """How many, an eighth of which is held out; 0 takes all."""
    steps: int
    """Steps of the optimizer (Adam)."""
    batch_size: int
    """Utterances in a step."""
    learning_rate: float
    """Largest relative change of a number in a step, about; it rises over a twentieth of the steps and falls to 0."""
    seed: int
    """Which utterances, and in which order."""

    def __post_init__(self) -> None:
        _require(bool(self.pairs), 'pairs: empty; write e.g. ["en-de"]')
        for name in ("steps", "batch_size"):
            _require(getattr(self, name) > 0, f"{name}: {getattr(self, name)} is not positive; write at least 1")
        _require(
            0 < self.learning_rate < 1,
            f"learning_rate: {self.learning_rate} is no relative change; write e.g. 0.003",
        )
        _require(
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
        by_sensitivity = sum(override.layers == "sensitivity" for override in self.overrides)
        _require(
            by_sensitivity <= 1,
            "overrides: more than one chooses its layers by sensitivity; give the others a list of layers",
        )

    @property
    def ranked(self) -> Override | None:
        """The override whose layers a sensitivity analysis chooses, if there is one."""
        return next((override for override in self.overrides if override.layers == "sensitivity"), None)


MOST_SECONDS, MOST_PASSES, MOST_BATCH = 600, 100, 4096
"""Of a segment, of averaged passes, of a batch: what a re-run would do with a bundle's recipe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentOptions:
    """How recordings without given segments are segmented; the defaults of SHAS."""

    method: SegmentationName
    """`shas+vad` adds the speech that a voice-activity detector finds besides; `vad` and `fixed` are baselines. `gold`
    takes the references' own segments: to measure by, never to upload."""
    max_seconds: float
    min_seconds: float
    threshold: float
    """Speech probability from which a frame stays when a segment is trimmed."""
    inference_times: int = 1
    """Shifted passes of the classifier that are averaged."""
    batch_size: int = 14
    """Windows per batch, for the speed. It changes no bit of the result on a processor, but for `original_batching`;
    on a GPU it may change the last ones."""
    original_batching: bool = False
    """Normalise windows over the padded rows of a batch, as the published code does; for comparisons with it."""

    def __post_init__(self) -> None:
        _require(
            0 <= self.min_seconds < self.max_seconds,
            f"min_seconds: {self.min_seconds} is not below max_seconds {self.max_seconds}; exchange them",
        )
        _require(
            self.max_seconds <= MOST_SECONDS,
            f"max_seconds: {self.max_seconds} is beyond {MOST_SECONDS}; write at most that",
        )
        for name, most in (("inference_times", MOST_PASSES), ("batch_size", MOST_BATCH)):
            _require(getattr(self, name) <= most, f"{name}: {getattr(self, name)} is beyond {most}; write at most that")
        _require(0 < self.threshold < 1, f"threshold: {self.threshold} is no probability; write e.g. 0.5")
        for name in ("inference_times", "batch_size"):
            _require(getattr(self, name) > 0, f"{name}: {getattr(self, name)} is not positive; write at least 1")

    @property
    def about(self) -> SegmentationMethod:
        """The method's entry in the registry."""
        return SEGMENTATION_METHODS[self.method]


MOST_NEW_TOKENS = 1024
"""More than thirty seconds of speech can hold several times over. A bundle's recipe is untrusted: without a bound it
could keep whoever runs it again for days."""
MOST_BEAMS = 64
MOST_BATCH_SECONDS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeOptions:
    """How segments become hypotheses."""

    dtype: Literal["bfloat16", "float32"]
    num_beams: int
    max_new_tokens: int
    batch_size: int
    """Most segments in a batch."""
    batch_seconds: float = 0.0
    """Most seconds of audio in a batch, padding and beams counted; 0 for no such limit."""
    fallbacks: tuple[str, ...] = ()
    """Names in `submission.system.fallbacks`, tried on hypotheses that repeat themselves or are empty; none is plain
    decoding, as in the paper."""

    def __post_init__(self) -> None:
        for name in ("num_beams", "max_new_tokens", "batch_size"):
            _require(getattr(self, name) > 0, f"{name}: {getattr(self, name)} is not positive; write at least 1")
        bounds = {"num_beams": MOST_BEAMS, "max_new_tokens": MOST_NEW_TOKENS, "batch_size": MOST_BATCH}
        for name, most in {**bounds, "batch_seconds": MOST_BATCH_SECONDS}.items():
            _require(getattr(self, name) <= most, f"{name}: {getattr(self, name)} is beyond {most}; write at most that")
        _require(self.batch_seconds >= 0, f"batch_seconds: {self.batch_seconds} is negative; write 0 for no such limit")
        for name in self.fallbacks:
            _require(name in FALLBACKS, f"fallbacks: {name!r} is unknown; choose from {', '.join(FALLBACKS)}")
        repeated = len(set(self.fallbacks)) < len(self.fallbacks)
        _require(not repeated, f"fallbacks: {list(self.fallbacks)} repeats a name; write each once")


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
