"""The data folder: what a participant or `submission.miniature` provides, and the digests of its parts.

models/<model>/      the base checkpoint
models/shas/         the segmentation classifier
models/comet/        optional: a COMET checkpoint, for `nox -s score`
corpora/<name>/      training corpora, each in its published layout (docs/training.md shows them)
acl_6060/{dev,eval}/ ACL 60/60
testsets/<NAME>/     recordings, FILE_ORDER and, where the organisers fix it, segments.yaml
references/<NAME>/   optional: gold segments and translations, for scoring
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from submission.errors import UserError
from submission.model.checkpoint import read_checkpoint
from submission.model.forecast import COMPANIONS
from submission.store.digests import canonical_json, sha256_text
from submission.store.input_files import OR, InputDigests, Reads, find_files, has_recordings
from submission.store.store import Input, Stage
from submission.system.campaign import Campaign
from submission.system.corpus_formats import ACL_6060, CORPUS_FORMATS
from submission.system.recipe.recipe import Recipe
from submission.system.recipe.training_options import CorpusOptions, Source

OPEN_TESTSET = "ACL6060"
"""ACL 60/60 eval with its gold segments: decoded and scored beside the blind sets, never uploaded."""
OPEN_FOLDER = "acl_6060/eval"
DEV_FOLDER = "acl_6060/dev"
COMET_PART = "models/comet"
"""Optional: the checkpoint that `nox -s score` scores with."""

MINIATURE = Path(__file__).parents[1] / "miniature"
SHIPPED = {"base": MINIATURE / "base", "shas": MINIATURE / "shas"}
"""What ships with the repository and is copied into the data folder of the campaign `miniature`."""

ORGANISERS = "https://iwslt.org"


COMET_HPARAMS, COMET_CHECKPOINT, COMET_ENCODER = "hparams.yaml", "checkpoints/model.ckpt", "encoder"
"""Files of a COMET checkpoint as it is published, and the folder of its encoder's tokenizer and configuration."""

SEGMENTS = "segments.yaml"
SEGMENT_LISTS = f"{SEGMENTS} | **/*.yaml | **/*.yml"
"""A test set's given segments, as `segment.testset` looks for them."""

CLASSIFIER = "models/shas"
"""Where the segmentation classifier lies below the data folder."""

NAMED_AUDIO = "audio that the corpus names"
"""Digest of the data folder for stages that read of it what their corpus names, and digests, alone."""

LICENSES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "NOTICE.md", "NOTICE.txt")
CHECKPOINT_FILES = Reads(
    content=(
        "config.json",
        "model.safetensors | model.safetensors.index.json",
        "model.safetensors | model-*.safetensors | *.safetensors",
        *COMPANIONS,
        *LICENSES,
    )
)
"""What is read of a checkpoint: one file of weights, or an index and its shards, and what lies beside them."""
CLASSIFIER_FILES = Reads(content=("config.json", "model.safetensors"))
COMET_FILES = Reads(
    content=(COMET_HPARAMS, COMET_CHECKPOINT, *(f"{COMET_ENCODER}/*.{suffix}" for suffix in ("json", "model", "txt")))
)
SHIPPED_FILES = {"base": CHECKPOINT_FILES, "shas": CLASSIFIER_FILES}


def shipped_models(campaign: Campaign) -> dict[str, Path]:
    """Return the folders of what ships with the repository for a campaign whose data is made here, by part."""
    assert campaign.model.shipped is not None  # which the campaign's own check demands of `made_here`
    return SHIPPED | {"base": MINIATURE / campaign.model.shipped}


@dataclass(frozen=True, slots=True, kw_only=True)
class Required:
    """A part of the data folder that a system reads."""

    part: str
    """Path below the data folder."""
    holds: tuple[str, ...]
    """Patterns, as in `submission.store.input_files`, of which each must match: half a download does not pass."""
    get: str
    """How to get it; `{folder}` stands for where it is to lie."""
    audio: str = ""
    """A folder of it, or alternatives, in which there must be audio; empty for none."""

    def needs(self) -> tuple[str, ...]:
        """Return what must be there, as it is printed."""
        folders = [f"{folder}/*" for folder in self.audio.split(OR)] if self.audio else []
        return tuple(
            one.replace(OR, " or ") for one in (*self.holds, *([f"audio, {OR.join(folders)}"] if folders else []))
        )


def needs_classifier(campaign: Campaign, recipe: Recipe) -> bool:
    """Return whether a system segments recordings with the classifier."""
    free = any(testset.segmentation != "given" for testset in campaign.testsets)
    return free and recipe.segment.about.needs_classifier


def required_parts(campaign: Campaign, recipe: Recipe) -> list[Required]:
    """Return what a system needs in its data folder, sorted by path."""
    model = campaign.model
    parts = [
        Required(
            part=f"models/{model.name}",
            holds=("config.json", "model.safetensors | model-*.safetensors | *.safetensors", "tokenizer*.json"),
            get="run `python -m submission.miniature data`, which makes the whole folder"
            if campaign.made_here
            else f"hf download {model.hub} --local-dir {{folder}}",
        )
    ]
    targets = sorted({pair.target for pair in campaign.pairs})
    # Dev is trained or watched on, from txt or xml; eval is scored against, line by line, from txt.
    acl = CORPUS_FORMATS["acl6060"]
    texts = tuple(f"text/txt/ACL.6060.*.en-xx.{target}.txt" for target in targets)
    for part, holds in ((DEV_FOLDER, acl.files(targets)), (OPEN_FOLDER, texts)):
        parts.append(Required(part=part, holds=holds, audio=acl.audio, get=f"into {{folder}}: ACL 60/60, {ACL_6060}"))
    if needs_classifier(campaign, recipe):
        get = (
            "a published SHAS checkpoint: `python -m segment convert CHECKPOINT --wav2vec2 WAV2VEC2 --out {folder}`; "
            'a classifier of your own: `python -m segment train`; or segment.method = "vad" in the recipe'
        )
        parts.append(Required(part=CLASSIFIER, holds=CLASSIFIER_FILES.content, get=get))
    corpus = recipe.corpus.scaled()
    for source in corpus.sources:
        corpus_format = CORPUS_FORMATS[source.format]
        files = source.files or corpus_format.files(needed_languages(corpus, source))
        parts.append(Required(part=source.part, holds=files, audio=corpus_format.audio, get=corpus_format.get))
    for testset in campaign.testsets:
        # Which files are its recordings, of whatever format, is what FILE_ORDER says.
        holds = ("FILE_ORDER",) + (() if testset.segmentation == "free" else (SEGMENT_LISTS,))
        get = f"into {{folder}}: the blind test set of {campaign.edition}, from the organisers ({ORGANISERS})"
        parts.append(Required(part=f"testsets/{testset.name}", holds=holds, get=get))
    return _each_once(parts)


def _each_once(parts: list[Required]) -> list[Required]:
    """Return the parts sorted by path, those that are read for several reasons once, with all that they must hold."""
    found: dict[str, Required] = {}
    for part in parts:
        known = found.get(part.part)
        if known is not None:
            holds = tuple(dict.fromkeys(known.holds + part.holds))
            if part.audio and part.audio != known.audio:
                holds += (f"{part.audio}/*",)
            part = replace(known, holds=holds)
        found[part.part] = part
    return [found[name] for name in sorted(found)]


def needed_languages(corpus: CorpusOptions, source: Source) -> list[str]:
    """Return the target languages that a recipe takes from one of its corpora: those that it must hold.

    A language comes from every corpus that is published in it, but where the recipe gives all its utterances to others.
    corpus: without scale and quotas.
    """
    published, needed = CORPUS_FORMATS[source.format].languages, []
    for language, total in corpus.utterances.items():
        shared = not total or total > sum(other.utterances.get(language, 0) for other in corpus.sources)
        if language in source.utterances or (shared and (language in published or not published)):
            needed.append(language)
    return sorted(needed)


def parts_read(campaign: Campaign, recipe: Recipe) -> dict[str, Reads]:
    """Return part of the data folder -> which of its files stages read; parts that may be missing are among them."""
    targets = sorted({pair.target for pair in campaign.pairs})
    acl = CORPUS_FORMATS["acl6060"]
    parts = {
        f"models/{campaign.model.name}": CHECKPOINT_FILES,
        CLASSIFIER: CLASSIFIER_FILES,
        DEV_FOLDER: Reads(content=acl.files(targets), clips=(acl.audio,)),
        OPEN_FOLDER: Reads(content=acl.files(targets), recordings=(acl.audio,)),
    }
    corpus = recipe.corpus.scaled()
    for source in corpus.sources:
        corpus_format = CORPUS_FORMATS[source.format]
        files = source.files or corpus_format.files(needed_languages(corpus, source))
        reads = Reads(content=files, clips=(corpus_format.audio or ".",))
        parts[source.part] = parts.get(source.part, Reads()) | reads
    texts = (f"{pair.name}.{suffix}" for pair in campaign.pairs for suffix in ("txt", "xml"))
    references = Reads(content=(SEGMENTS, *texts, *sorted({f"{pair.source}.txt" for pair in campaign.pairs})))
    for testset in campaign.testsets:
        lists = () if testset.segmentation == "free" else (SEGMENT_LISTS,)
        parts[testset_part(testset.name)] = Reads(content=("FILE_ORDER", *lists), recordings=(".",))
        parts[reference_part(testset.name)] = references
    return parts


def missing_parts(data: Path, required: list[Required]) -> list[Required]:
    """Return the required parts that are not in a data folder, each with only what it lacks in `holds`."""
    missing = []
    for part in required:
        folder = data / part.part
        lacks = tuple(pattern for pattern in part.holds if next(find_files(folder, pattern), None) is None)
        silent = bool(part.audio) and not any(has_recordings(folder / below) for below in part.audio.split(OR))
        if lacks or silent:
            missing.append(replace(part, holds=lacks, audio=part.audio if silent else ""))
    return missing


def check_parts(data: Path, campaign: Campaign) -> None:
    """Refuse, before any work, what is there but cannot be used: a torn base model."""
    read_checkpoint(data / "models" / campaign.model.name)


def comet_digest(folder: Path, digests: InputDigests) -> str:
    """Return the digest of a COMET checkpoint: of all that its figures depend on.

    Raises UserError where the folder is none.
    """
    missing = [name for name in (COMET_HPARAMS, COMET_CHECKPOINT) if not (folder / name).is_file()]
    if missing:
        get = f"hf download Unbabel/wmt22-comet-da --local-dir {folder}"
        raise UserError(f"COMET model {folder}", f"lacks {' and '.join(missing)}", get)
    return digests.digest(folder, COMET_FILES)


def testset_part(name: str) -> str:
    """Return where a test set's recordings lie below the data folder."""
    return OPEN_FOLDER if name == OPEN_TESTSET else f"testsets/{name}"


def reference_part(name: str) -> str:
    """Return where a test set's references lie below the data folder."""
    return OPEN_FOLDER if name == OPEN_TESTSET else f"references/{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFolder:
    """The data folder of a system, as inputs of stages: one that `--data` names, or the artifact of the stage data."""

    given: Path | None
    """The folder that `--data` names."""
    stage: Stage | None
    """The stage that makes the folder; None where it is given."""
    reads: Mapping[str, Reads]
    """Part of the folder -> which of its files are read."""
    digests: InputDigests

    def part(self, part: str) -> Input:
        """Return a part of the folder as an input; its digest is that of what is read of it, `absent` without it."""
        if self.stage is not None:
            return Input(digest=sha256_text(f"{self.stage.key}/{part}"), path=Path(part), stage=self.stage)
        folder = self.given / part if self.given else Path(part)
        there = self.given is not None and folder.is_dir()
        return Input(digest=self.digests.digest(folder, self.reads[part]) if there else "absent", path=folder)

    def whole(self, parts: Iterable[str]) -> Input:
        """Return the folder itself, for utterances whose audio paths are relative to it, as an input.

        parts: what is read of it, which alone its digest covers.
        """
        return self._root(sha256_text(canonical_json({part: self.part(part).digest for part in parts})))

    def named_audio(self) -> Input:
        """Return the folder itself, for stages that read of it only audio that their corpus names and digests."""
        return self._root(NAMED_AUDIO)

    def _root(self, digest: str) -> Input:
        return Input(digest=digest, path=Path() if self.stage else self.given or Path(), stage=self.stage)

    def missing(self, required: list[Required]) -> list[Required]:
        """Return the required parts that the folder lacks; none where a stage makes it."""
        if self.stage is not None:
            return []
        return missing_parts(self.given, required) if self.given else required

    def check(self, campaign: Campaign, required: list[Required]) -> None:
        """Raise UserError where the folder lacks a part, or holds an incomplete base model."""
        missing = self.missing(required)
        if missing:
            place = str(self.given or "DIR")
            lines = "".join(
                f"  {r.part}: {', '.join(r.needs())}\n"
                f"      {r.get.replace('{folder}', shlex.quote(f'{place}/{r.part}'))}\n"
                for r in missing
            )
            looked = f"looked in {place}" if self.given else "no --data DIR was given"
            raise UserError(
                f"campaign {campaign.name}",
                f"the data folder lacks {len(missing)} of {len(required)} parts ({looked})",
                f"put these there and run the same command with --data {place}:\n{lines}".rstrip(),
            )
        if self.given is not None:
            check_parts(self.given, campaign)
