"""Write recordings in the layouts in which corpora and test sets are published."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from submission.miniature.recordings import PlacedSentence, SyntheticRecording, write_wav
from submission.store.digests import write_text
from submission.text.segments import Segment, write_segments

LANGUAGES = ("de", "zh")
_XML_NAMES = {"en": "English", "de": "German", "zh": "Chinese"}


def write_plain_corpus(folder: Path, recordings: Iterable[SyntheticRecording], *, clips: bool) -> None:
    """Write a corpus in the plain layout: `audio/` and `utterances.tsv`.

    clips: every recording is one utterance, whose positions are then left empty (the whole file).
    """
    audio = folder / "audio"
    audio.mkdir(parents=True)
    rows = ["\t".join(("id", "audio", "start", "end", "recording", "source", *LANGUAGES))]
    for recording in recordings:
        write_wav(audio / recording.name, recording.samples)
        for number, line in enumerate(recording.lines):
            place = ("", "") if clips else (str(line.start), str(line.end))
            name = recording.name.removesuffix(".wav")
            identity = name if clips else f"{name}_{number:04d}"
            texts = [line.sentence.source, *(line.sentence.targets[language] for language in LANGUAGES)]
            rows.append("\t".join((identity, recording.name, *place, recording.name, *texts)))
    write_text(folder / "utterances.tsv", "\n".join(rows) + "\n")


def write_acl_6060(folder: Path, split: str, talks: Sequence[SyntheticRecording]) -> None:
    """Write one split (`dev` or `eval`) in the layout of ACL 60/60: talks, gold segments, text and xml."""
    gold, text, xml = (folder / part for part in ("segmented_wavs/gold", "text/txt", "text/xml"))
    for part in (folder / "full_wavs", gold, text, xml):
        part.mkdir(parents=True)
    number = 0
    for talk in talks:
        write_wav(folder / "full_wavs" / talk.name, talk.samples)
        for line in talk.lines:
            number += 1
            write_wav(gold / f"sent_{number}.wav", talk.cut(line))
    for language in ("en", *LANGUAGES):
        name = f"ACL.6060.{split}.en-xx.{language}"
        write_text(text / f"{name}.txt", _lines(talks, language))
        write_text(xml / f"{name}.xml", _xml(split, talks, language))
    write_text(folder / "FILE_ORDER", "".join(talk.name.removesuffix(".wav") + "\n" for talk in talks))


def write_testset(
    data: Path,
    name: str,
    recordings: Sequence[SyntheticRecording],
    languages: Sequence[str],
    *,
    fixed: bool = False,
    listed: Sequence[Sequence[PlacedSentence]] | None = None,
    regions: Sequence[Segment] = (),
    suffixes: bool,
) -> None:
    """Write a blind test set to `testsets/` and its references to `references/`.

    fixed: the organisers give the segmentation. listed: per recording the sentences that are to be translated; None for
    all. regions: where the organisers name these alone. suffixes: FILE_ORDER names the files with `.wav` (both ways are
    in use).
    """
    blind, kept = data / "testsets" / name, data / "references" / name
    blind.mkdir(parents=True)
    kept.mkdir(parents=True)
    order = []
    for recording in recordings:
        write_wav(blind / recording.name, recording.samples)
        order.append(recording.name if suffixes else recording.name.removesuffix(".wav"))
    write_text(blind / "FILE_ORDER", "\n".join(order) + "\n")
    chosen = listed or [recording.lines for recording in recordings]
    segments = [
        Segment(recording=recording.name, start=line.start, end=line.end)
        for recording, lines in zip(recordings, chosen, strict=True)
        for line in lines
    ]
    for path in [kept, blind] if fixed else [kept]:
        write_segments(path / "segments.yaml", segments)
    if regions:
        write_segments(blind / "segments.yaml", regions)
    spoken = [line for lines in chosen for line in lines]
    write_text(kept / "en.txt", "".join(line.sentence.source + "\n" for line in spoken))
    for language in languages:
        write_text(kept / f"en-{language}.txt", "".join(line.sentence.targets[language] + "\n" for line in spoken))


def _text(line: PlacedSentence, language: str) -> str:
    return line.sentence.source if language == "en" else line.sentence.targets[language]


def _lines(talks: Sequence[SyntheticRecording], language: str) -> str:
    return "".join(_text(line, language) + "\n" for talk in talks for line in talk.lines)


def _xml(split: str, talks: Sequence[SyntheticRecording], language: str) -> str:
    """Return the text as the xml of the evaluation campaigns; segments are counted through the whole split."""
    kind = "srcset" if language == "en" else "refset"
    target = "" if language == "en" else f' trglang="{_XML_NAMES[language]}" refid="ref"'
    rows = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        "<mteval>",
        f'<{kind} setid="ACL.6060.{split}" srclang="English"{target}>',
    ]
    number = 0
    for talk in talks:
        rows.append(f'<doc docid="{talk.name.removesuffix(".wav")}" genre="presentations">')
        for line in talk.lines:
            number += 1
            rows.append(f'<seg id="{number}">{html.escape(_text(line, language), quote=False)}</seg>')
        rows.append("</doc>")
    return "\n".join([*rows, f"</{kind}>", "</mteval>"]) + "\n"
