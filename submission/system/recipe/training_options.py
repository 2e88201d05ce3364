"""Options of corpora and of fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Literal

from submission.errors import UserError
from submission.system.corpus_formats import CORPUS_FORMATS
from submission.system.recipe.requirement import require
from submission.system.schema import nearest

MOST_SOURCES, MOST_LANGUAGES = 100, 100
MOST_SCALE = 1_000
"""Times as many utterances: a recipe is data of somebody else once it lies in a bundle."""


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
        require(bool(plain), f"name: {self.name!r} is no plain name; write one, and the place as folder")
        place = PurePosixPath(self.folder)
        inside = not place.is_absolute() and ".." not in place.parts
        require(inside, f"folder: {self.folder!r} leaves the data folder; name a folder below it")
        known = self.format in CORPUS_FORMATS
        require(known, f"format: {self.format!r} is unknown; {nearest(self.format, CORPUS_FORMATS)}")
        self._check_options()

    def _check_options(self) -> None:
        """Require the options that the format reads, and refuse those that it would ignore."""
        read = CORPUS_FORMATS[self.format].options
        for name in ("files", "columns", "targets"):
            given = bool(getattr(self, name))
            require(name in read or not given, f"{name}: format {self.format!r} reads no such option; leave it out")
            require(name not in read or given, f"{name}: missing, which format {self.format!r} needs; add it")
        for pattern in self.files:
            place = PurePosixPath(pattern)
            inside = not place.is_absolute() and ".." not in place.parts
            require(inside, f"files: {pattern!r} leaves the corpus folder; name files below it")
        if unknown := sorted(self.columns.keys() - {"audio", "source", "id", "recording"}):
            require(False, f"columns.{unknown[0]}: unknown; known: audio, source, id, recording")
        if self.columns and (missing := sorted({"audio", "source"} - self.columns.keys())):
            require(False, f'columns.{missing[0]}: missing; write {missing[0]} = "name of the column"')

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
        require(bool(self.sources), "sources: empty; name at least one corpus")
        few = len(self.sources) <= MOST_SOURCES and len(self.utterances) <= MOST_LANGUAGES
        require(few, f"sources: more than {MOST_SOURCES}, or more than {MOST_LANGUAGES} languages; name fewer")
        names = [source.name for source in self.sources]
        require(len(set(names)) == len(names), f"sources: {names} repeats a name; give each its own")
        require(all(n >= 0 for n in self.utterances.values()), "utterances: negative; write 0 for all there are")
        require(
            0 < self.scale <= MOST_SCALE, f"scale: {self.scale} is not from above 0 to {MOST_SCALE}; write e.g. 0.1"
        )
        for name in sorted(self.quotas.keys() - set(names)):
            require(False, f"quotas.{name}: no corpus of that name; {nearest(name, names)}")
        sources = self._with_quotas()
        for source in sources:
            self._check_quotas(source, sources)
        require(
            self.held_out_recordings >= 0,
            f"held_out_recordings: {self.held_out_recordings} is negative; write 0 or more",
        )
        require(
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
            require(count > 0, f"{where}: {count} is not positive; leave it out to share the rest")
            require(language in self.utterances, f"{where}: not in corpus.utterances; write the total there")
            given = sum(other.utterances.get(language, 0) for other in sources)
            total = self.utterances[language]
            require(
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
            require(getattr(self, name) > 0, f"{name}: {getattr(self, name)} is not positive; write at least 1")
        require(
            self.save_every_steps % self.log_every_steps == 0,
            f"save_every_steps: {self.save_every_steps} is no multiple of log_every_steps {self.log_every_steps}, so a "
            "resumed run would log other means than an uninterrupted one; write a multiple",
        )
        require(self.learning_rate > 0, f"learning_rate: {self.learning_rate} is not positive; write e.g. 1e-6")
        for name in ("weight_decay", "bleu_utterances"):
            require(getattr(self, name) >= 0, f"{name}: {getattr(self, name)} is negative; write 0 or more")
        for name in ("dropout", "warmup_ratio"):
            require(
                0 <= getattr(self, name) < 1,
                f"{name}: {getattr(self, name)} is no share; write a number from 0 to below 1",
            )
