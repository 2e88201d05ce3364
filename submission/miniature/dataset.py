"""Write the data folder of the miniature, in the layouts of the real one.

    models/       the trained base model and segmentation classifier, as they ship with the repository
    corpora/      talks: short clips for fine-tuning; recordings: long ones for the segmentation classifier
    acl_6060/     dev and eval: talks with gold segments
    testsets/     six blind sets, each like the real one of its name
    references/   references that organisers do not publish

Test sets hold held-out sentences only, partly by voices and at speeds that training does not have. The same arguments
give the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from submission.errors import UserError
from submission.miniature.language import DOMAINS
from submission.miniature.layouts import LANGUAGES, write_acl_6060, write_plain_corpus, write_testset
from submission.miniature.recordings import (
    ENVIRONMENTS,
    SentencePool,
    Session,
    SyntheticRecording,
    crowded,
    jingle,
    musical,
    noisy,
    quiet,
    record,
    spliced,
    telephone,
)
from submission.miniature.voice import voices
from submission.progress import progress
from submission.store.input_files import Reads, find_files
from submission.system.data_folder import SHIPPED_FILES
from submission.text.segments import SAMPLE_RATE, Segment

SEED = 2026

Tick = Callable[[float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSize:
    """How much is written."""

    clips: int
    """Utterances of the fine-tuning corpus."""
    recordings: int
    """Long recordings for the segmentation classifier."""
    most_lines: int
    """Largest number of sentences in a recording."""


FULL = DataSize(clips=1200, recordings=24, most_lines=30)

TALKS_EVERY = 4
"""Of the fine-tuning corpus, one clip in this many is not from a talk."""

DEV = tuple(
    Session(name=f"2022.mini-long.{number}", domains=("talks",), voices=(voice,), lines=24, environment=quiet)
    for number, voice in ((268, "henry"), (367, "susan"), (590, "karen"), (110, "bruno"), (117, "queen"))
)
EVAL = tuple(
    Session(name=f"2022.mini-long.{number}", domains=("talks",), voices=(voice,), lines=25, environment=quiet)
    for number, voice in ((597, "grace"), (111, "niall"), (410, "david"), (468, "terry"))
)
"""The talks of ACL 60/60, in the order of their segments, which is not that of their names."""

ACL = (
    Session(name="talk_367", domains=("talks",), voices=("susan",), lines=20, environment=quiet),
    Session(name="talk_117", domains=("talks",), voices=("henry",), lines=20, environment=quiet, speed=1.05),
)
TVSERIES = tuple(
    Session(name=name, domains=("television",), voices=pair, lines=22, environment=musical, longest_words=9)
    for name, pair in (("episode_2", ("carol", "terry")), ("episode_1", ("queen", "frank")))
)
CHALLENGEACCENT = tuple(
    Session(name=name, domains=("daily", "travel", "telephone"), voices=(voice,), lines=14, environment=quiet)
    for name, voice in (("speaker_c", "niall"), ("speaker_a", "olive"), ("speaker_b", "roger"))
)
CALLCENTER = tuple(
    Session(name=name, domains=("telephone",), voices=pair, lines=20, environment=telephone)
    for name, pair in (("call_7", ("alice", "roger")), ("call_3", ("percy", "grace")))
)
YOUTUBE = (
    Session(
        name="video_9",
        domains=("travel", "daily"),
        voices=("lewis",),
        lines=15,
        environment=noisy,
        pauses_seconds=(0.3, 1.0),
    ),
    Session(
        name="video_4", domains=("daily", "television"), voices=("moira",), lines=15, environment=crowded, speed=0.88
    ),
    Session(name="video_5", domains=("travel", "talks"), voices=("emily",), lines=15, environment=noisy, speed=1.12),
)
BUSINESSNEWS = tuple(
    Session(name=f"report_{part}", domains=("news",), voices=(voice,), lines=10, environment=quiet)
    for part, voice in enumerate(("irene", "terry", "irene", "james"))
)
"""The parts of one broadcast, with music between them."""
UNLISTED_EVERY = 5
"""Of the broadcast, one sentence in this many is not to be translated; those between two of them are a region."""
REGION_MARGIN_SAMPLES = SAMPLE_RATE // 5
"""How far a region reaches beyond its sentences; pauses are longer."""


def write_data_folder(
    out: Path,
    model_name: str,
    shipped: dict[str, Path],
    *,
    seed: int = SEED,
    volume: DataSize = FULL,
) -> None:
    """Write the data folder into `out`.

    shipped: folders of the trained models in the repository, `base` and `shas`; what is not named is not written.
    Raises UserError, before anything is written, if one of them has not been trained.
    """
    for name, folder in shipped.items():
        if not (folder / "config.json").is_file():
            verb = "submission.miniature forge" if name == "base" else "segment train"
            raise UserError(str(folder), "holds no trained model", f"train it with `python -m {verb}` (see its --help)")
    for name, folder in shipped.items():
        _copy_model(folder, out / "models" / (model_name if name == "base" else name), SHIPPED_FILES[name])
    pool = SentencePool(seed)

    with progress("data", _sentences(volume), "sentences") as tick:

        def made(sessions: tuple[Session, ...]) -> list[SyntheticRecording]:
            return [record(_within(session, volume), pool, seed, tick) for session in sessions]

        write_acl_6060(out / "acl_6060/dev", "dev", made(DEV))
        write_acl_6060(out / "acl_6060/eval", "eval", made(EVAL))
        write_testset(out, "ACL", made(ACL), LANGUAGES, fixed=False, suffixes=False)
        write_testset(out, "TVSERIES", made(TVSERIES), LANGUAGES, fixed=False, suffixes=True)
        write_testset(out, "CHALLENGEACCENT", made(CHALLENGEACCENT), ("de",), fixed=True, suffixes=True)
        write_testset(out, "CALLCENTER", made(CALLCENTER), LANGUAGES, fixed=False, suffixes=False)
        write_testset(out, "YOUTUBE", made(YOUTUBE), LANGUAGES, fixed=False, suffixes=True)
        _write_broadcast(out, made(BUSINESSNEWS), seed)
        write_plain_corpus(out / "corpora/talks", made(_clip_sessions(volume.clips)), clips=True)
        write_plain_corpus(out / "corpora/recordings", made(_long_sessions(volume.recordings)), clips=False)


def _copy_model(source: Path, target: Path, reads: Reads) -> None:
    """Copy the files that make up a model; the report of its training and what else lies there is left."""
    target.mkdir(parents=True)
    for pattern in reads.content:
        for path in find_files(source, pattern):
            shutil.copyfile(path, target / path.name)


def _within(session: Session, volume: DataSize) -> Session:
    return replace(session, lines=min(session.lines, volume.most_lines))


def _sentences(volume: DataSize) -> int:
    """Return the number of sentences of all recordings."""
    sets = (*DEV, *EVAL, *ACL, *TVSERIES, *CHALLENGEACCENT, *CALLCENTER, *YOUTUBE, *BUSINESSNEWS)
    sessions = (*sets, *_clip_sessions(volume.clips), *_long_sessions(volume.recordings))
    return sum(_within(session, volume).lines for session in sessions)


def _write_broadcast(out: Path, parts: list[SyntheticRecording], seed: int) -> None:
    """Write one long recording of which segments.yaml names the regions to be translated, of several sentences each."""
    rng = np.random.default_rng([seed, len(parts)])
    pieces: list[SyntheticRecording | np.ndarray] = []
    for part in parts:
        pieces += [jingle(float(rng.uniform(3, 6)), rng), part]
    broadcast = spliced("morning_report", [*pieces, jingle(4, rng)])
    starts = range(0, len(broadcast.lines), UNLISTED_EVERY)
    runs = [run for start in starts if (run := broadcast.lines[start : start + UNLISTED_EVERY - 1])]
    regions = [
        Segment(
            recording=broadcast.name,
            start=max(0, run[0].start - REGION_MARGIN_SAMPLES),
            end=run[-1].end + REGION_MARGIN_SAMPLES,
        )
        for run in runs
    ]
    listed = [line for run in runs for line in run]
    write_testset(out, "BUSINESSNEWS", [broadcast], LANGUAGES, listed=[listed], regions=regions, suffixes=True)


def _clip_sessions(count: int) -> tuple[Session, ...]:
    """Return the clips of the fine-tuning corpus: talks mostly, by all voices of training, in all environments."""
    speakers = [voice.name for voice in voices("train")]
    others = [domain for domain in DOMAINS if domain != "talks"]
    return tuple(
        Session(
            name=f"clip_{number:05d}",
            domains=("talks" if number % TALKS_EVERY else others[number // TALKS_EVERY % len(others)],),
            voices=(speakers[number % len(speakers)],),
            lines=1,
            environment=ENVIRONMENTS[number // len(speakers) % len(ENVIRONMENTS)] if number % 2 else quiet,
            split="train",
            pauses_seconds=(0.05, 0.3),
        )
        for number in range(count)
    )


def _long_sessions(count: int) -> tuple[Session, ...]:
    """Return the long recordings: every environment, one or two voices, short and long pauses."""
    speakers = [voice.name for voice in voices("train")]
    pauses = ((0.3, 0.9), (0.4, 2.0), (0.8, 4.0))
    return tuple(
        Session(
            name=f"recording_{number:03d}",
            domains=(DOMAINS[number % len(DOMAINS)], DOMAINS[(number + 2) % len(DOMAINS)]),
            voices=tuple(speakers[(number * 5 + turn) % len(speakers)] for turn in range(1 + number % 2)),
            lines=24,
            environment=ENVIRONMENTS[number % len(ENVIRONMENTS)],
            split="train",
            pauses_seconds=pauses[number % len(pauses)],
            speed=(0.92, 1.0, 1.08)[number // len(ENVIRONMENTS) % 3],
        )
        for number in range(count)
    )
