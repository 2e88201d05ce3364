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

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from submission.errors import UserError
from submission.model.checkpoint import read_checkpoint
from submission.store.digests import (
    canonical_json,
    describe_files,
    files_below,
    sha256_file,
    sha256_text,
    tree_digest,
    write_text,
)
from submission.store.store import Input, Stage
from submission.system.campaign import Campaign
from submission.system.corpus_formats import ACL_6060, CORPUS_FORMATS
from submission.system.recipe import Recipe

OPEN_TESTSET = "ACL6060"
"""ACL 60/60 eval with its gold segments: decoded and scored beside the blind sets, never uploaded."""
OPEN_FOLDER = "acl_6060/eval"
DEV_FOLDER = "acl_6060/dev"
COMET_PART = "models/comet"
"""Optional: the checkpoint that `nox -s score` scores with."""

MINIATURE = Path(__file__).parents[1] / "miniature"
SHIPPED = {"base": MINIATURE / "base", "shas": MINIATURE / "shas"}
"""What ships with the repository and is copied into the miniature's data folder."""

TRACK = "https://iwslt.org/2026/compression"


COMET_HPARAMS, COMET_CHECKPOINT, COMET_ENCODER = "hparams.yaml", "checkpoints/model.ckpt", "encoder"
"""Files of a COMET checkpoint as it is published, and the folder of its encoder's tokenizer and configuration."""

CLASSIFIER = "models/shas"
"""Where the segmentation classifier lies below the data folder."""

UNSHIPPED = ("forge.json", "*.md", ".*")
"""What lies beside a forged model's files and is not part of the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Required:
    """A part of the data folder that a system reads."""

    part: str
    """Path below the data folder."""
    holds: tuple[str, ...]
    """Files or patterns that must be there, so that an empty folder or half a download does not pass."""
    get: str
    """How to get it."""


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
            holds=("config.json", "*.safetensors", "tokenizer*.json"),
            get="run `python -m submission.miniature data`, which makes the whole folder"
            if campaign.made_here
            else f"hf download {model.hub} --local-dir DIR/models/{model.name}",
        )
    ]
    targets = sorted({pair.target for pair in campaign.pairs})
    # Dev is trained or watched on, from txt or xml; eval is scored against, line by line, from txt.
    for split, texts in (("dev", "text/*/ACL.6060.*.en-xx.{}.*"), ("eval", "text/txt/ACL.6060.*.en-xx.{}.txt")):
        holds = ("segmented_wavs/gold/*.wav", *(texts.format(target) for target in targets))
        parts.append(Required(part=f"acl_6060/{split}", holds=holds, get=f"ACL 60/60, {ACL_6060}"))
    if needs_classifier(campaign, recipe):
        get = (
            "a published SHAS checkpoint: `python -m segment convert CHECKPOINT --wav2vec2 DIR --out DIR/models/shas`; "
            'a classifier of your own: `python -m segment train`; or segment.method = "vad" in the recipe'
        )
        parts.append(Required(part=CLASSIFIER, holds=("config.json", "model.safetensors"), get=get))
    for source in recipe.corpus.sources:
        corpus_format = CORPUS_FORMATS[source.format]
        if source.part not in {part.part for part in parts}:
            get = corpus_format.get.replace("FOLDER", f"DIR/{source.part}")
            parts.append(Required(part=source.part, holds=source.files or corpus_format.holds, get=get))
    for testset in campaign.testsets:
        # Which files are its recordings, of whatever format, is what FILE_ORDER says.
        holds = ("FILE_ORDER",) + (("*.y*ml",) if testset.segmentation != "free" else ())
        parts.append(Required(part=f"testsets/{testset.name}", holds=holds, get=f"the blind test set, {TRACK}"))
    return sorted(parts, key=lambda r: r.part)


def missing_parts(data: Path, required: list[Required]) -> list[Required]:
    """Return the required parts that are not in a data folder, each with only what it lacks in `holds`."""
    missing = []
    for part in required:
        lacks = tuple(pattern for pattern in part.holds if next((data / part.part).rglob(pattern), None) is None)
        if lacks:
            missing.append(replace(part, holds=lacks))
    return missing


def check_parts(data: Path, campaign: Campaign) -> None:
    """Refuse, before any work, what is there but cannot be used: a torn base model."""
    read_checkpoint(data / "models" / campaign.model.name)


def model_digest(folder: Path) -> str:
    """Return the digest of a forged model: its files, without the notes on how it was made."""
    files = describe_files(folder)
    return sha256_text(
        canonical_json({name: f for name, f in files.items() if not any(fnmatch(name, p) for p in UNSHIPPED)})
    )


def comet_digest(folder: Path, cache: Path) -> str:
    """Return the digest of a COMET checkpoint: of all that its figures depend on.

    Raises UserError where the folder is none.
    """
    missing = [name for name in (COMET_HPARAMS, COMET_CHECKPOINT) if not (folder / name).is_file()]
    if missing:
        get = f"hf download Unbabel/wmt22-comet-da --local-dir {folder}"
        raise UserError(f"COMET model {folder}", f"lacks {' and '.join(missing)}", get)
    parts = {COMET_HPARAMS: sha256_file(folder / COMET_HPARAMS)}
    for part in (Path(COMET_CHECKPOINT).parent.as_posix(), COMET_ENCODER):
        if (folder / part).is_dir():
            parts[part] = cached_tree_digest(folder / part, cache)
    return sha256_text(canonical_json(parts))


def cached_tree_digest(folder: Path, cache: Path) -> str:
    """Return `tree_digest(folder)`, from a cache file where no file's size, time or inode has changed since.

    A base model is 16 GB: without the cache every command would spend a minute on reading it.
    """
    stats = [
        [p.relative_to(folder).as_posix(), (s := p.stat()).st_size, s.st_mtime_ns, s.st_ino]
        for p in files_below(folder)
    ]
    entry = cache / f"{sha256_text(str(folder.resolve()))}.json"
    try:
        known = json.loads(entry.read_text(encoding="utf-8"))
        if known["stats"] == stats:
            cached: str = known["digest"]
            return cached
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no cache, or not one of ours: it is only a short cut
    digest = tree_digest(folder)
    cache.mkdir(parents=True, exist_ok=True)
    write_text(entry, canonical_json({"digest": digest, "stats": stats}))
    return digest


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
    cache: Path
    """Where digests are kept."""

    def part(self, part: str) -> Input:
        """Return a part of the folder as an input; its digest is `absent` where it is not there."""
        if self.stage is not None:
            return Input(digest=sha256_text(f"{self.stage.key}/{part}"), path=Path(part), stage=self.stage)
        folder = self.given / part if self.given else Path(part)
        there = self.given is not None and folder.is_dir()
        return Input(digest=cached_tree_digest(folder, self.cache) if there else "absent", path=folder)

    def whole(self, parts: Iterable[str]) -> Input:
        """Return the folder itself, for utterances whose audio paths are relative to it, as an input.

        parts: what is read of it, which alone its digest covers.
        """
        digest = sha256_text(canonical_json({part: self.part(part).digest for part in parts}))
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
            lines = "".join(f"  {r.part}: {', '.join(r.holds)}\n      {r.get.replace('DIR', place)}\n" for r in missing)
            looked = f"looked in {place}" if self.given else "no --data DIR was given"
            raise UserError(
                f"campaign {campaign.name}",
                f"the data folder lacks {len(missing)} of {len(required)} parts ({looked})",
                f"put these there and run the same command with --data {place}:\n{lines}".rstrip(),
            )
        if self.given is not None:
            check_parts(self.given, campaign)
