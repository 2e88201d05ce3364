"""Build `train.jsonl` and `dev.jsonl` from corpora in their own layouts: sampled and checked utterances.

dev.jsonl is all of ACL 60/60 dev, in the campaign's languages: calibration and analyses read it, and fine-tuning
measures its loss on it. Where ACL 60/60 dev is a training corpus too, whole recordings of it are held out of
train.jsonl, and both files are read from the same audio, gold or full, so that fine-tuning can exclude from dev what it
trains on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from submission.counting import counted
from submission.errors import UserError
from submission.store.digests import canonical_json, write_text
from submission.system.recipe.training_options import CorpusOptions, Source
from submission.text.corpus import BESIDE, Utterance, write_corpus
from submission.text.segments import SAMPLE_RATE
from train.corpora.audio_digests import write_audio_digests
from train.corpora.embedded_audio import EXTRACTED, remove_unused
from train.corpora.formats import Reader, acl6060, reader_of
from train.corpora.formats.corpus_utterance import CorpusUtterance, Unparsed
from train.corpora.paper_sizes import TABLE_3
from train.corpora.sampling import Corpus, CorpusSample, rank, sample_utterances, too_few_fix

DEV_FOLDER = "acl_6060/dev"
ACL_6060_DEV = Source(name="acl6060-dev", format="acl6060", folder=DEV_FOLDER)
REPORT = "corpus_report.json"
NAMED = 5
"""How many recordings that cannot be used a message names with their fault; the report has all."""


def check(
    result: CorpusSample, corpora: Sequence[Corpus], wanted: Mapping[str, int], options: CorpusOptions, what: str
) -> None:
    """Raise UserError where too much was left out or too little is there."""
    share = result.skipped_count / max(result.examined_count, 1)
    if share > options.max_skipped_share:
        reasons = "\n".join(f"  {reason}: {len(n)}, e.g. {n[0]}" for reason, n in sorted(result.skipped.items()))
        reasons += "".join(f"\n  {audio}: {why}" for audio, why in sorted(result.unusable.items())[:NAMED])
        raise UserError(
            f"{what}",
            f"{result.skipped_count} of {result.examined_count} utterances ({share:.1%}) cannot be used, allowed are "
            f"{options.max_skipped_share:.1%}:\n{reasons}\n",
            "fix the data, or raise corpus.max_skipped_share in the recipe",
        )
    for language, count in wanted.items():
        quotas = [
            (f" of {c.name}", c.quota[language], result.counts[language, c.name])
            for c in corpora
            if language in c.quota
        ]
        for name, requested, found in [*quotas, ("", count, len(result.taken[language]))]:
            if not found or (found < requested and not options.allow_fewer):
                raise UserError(
                    f"{what}, target language {language}{name}",
                    f"holds {found} usable utterances, the recipe requests {requested or 'all, at least one'}",
                    too_few_fix(found, options.allow_fewer),
                )


def _hours(utterances: Sequence[Utterance]) -> float:
    return round(sum(u.end - u.start for u in utterances) / SAMPLE_RATE / 3600, 4)


def describe(result: CorpusSample, wanted: Mapping[str, int]) -> dict[str, Any]:
    """Return counts, hours and what was left out, for corpus_report.json.

    The paper's numbers stand beside ours where the recipe requests as many utterances of a language as the paper had.
    """
    languages = {}
    for language, utterances in result.taken.items():
        entry: dict[str, Any] = {
            "requested": wanted[language] or "all",
            "utterances": len(utterances),
            "hours": _hours(utterances),
        }
        parts: dict[str, list[Utterance]] = {}
        for utterance in utterances:
            parts.setdefault(utterance.id.partition("/")[0], []).append(utterance)
        entry["corpora"] = {name: {"utterances": len(us), "hours": _hours(us)} for name, us in sorted(parts.items())}
        paper = TABLE_3.get(language)
        if paper is not None and paper.utterances == wanted[language]:
            entry["paper"] = paper._asdict()
        languages[language] = entry
    return {
        "languages": languages,
        "examined": result.examined_count,
        "skipped": {reason: {"count": len(names), "utterances": names} for reason, names in result.skipped.items()},
        "unusable_audio": dict(sorted(result.unusable.items())),
        "clipped": sorted(result.clipped),
    }


def _print_summary(part: str, report: dict[str, Any]) -> None:
    """Print how much was sampled, one line a language, and how much was left out for which reason."""
    for language, entry in report["languages"].items():
        line = f"corpus {part}: {language}: {counted(entry['utterances'], 'utterance')}, {entry['hours']:.2f} h"
        if "paper" in entry:
            line += f" (the paper: {entry['paper']['utterances']:,}, {entry['paper']['hours']:.2f} h)"
        if isinstance(entry["requested"], int) and entry["utterances"] < entry["requested"]:
            line += f", fewer than the {entry['requested']:,} requested"
        print(line, file=sys.stderr)
    reasons = [f"{reason}: {entry['count']:,}" for reason, entry in sorted(report["skipped"].items())]
    if report["clipped"]:
        reasons.append(f"end moved to the recording's: {len(report['clipped']):,} (kept)")
    if reasons:
        print(f"corpus {part}: left out of {report['examined']:,}: {', '.join(reasons)}", file=sys.stderr, flush=True)


def _print_cancelled(part: str, cancelled: Mapping[Path, float]) -> None:
    """Print how many recordings have channels that cancel out in their mean, with the worst of them."""
    if cancelled:
        worst = max(sorted(cancelled), key=cancelled.__getitem__)
        line = f"corpus {part}: channels cancel out in the mean, which is trained on, in"
        where = counted(len(cancelled), "recording")
        print(f"{line} {where} (most in {worst}: {cancelled[worst]:.1f} s)", file=sys.stderr, flush=True)


def _interleaved(result: CorpusSample) -> list[Utterance]:
    """Return the utterances sorted by id, the languages of each side by side, so that they share one audio read."""
    return sorted((u for us in result.taken.values() for u in us), key=lambda u: (u.id, u.target_lang))


def held_out_recordings(data: Path, languages: Sequence[str], options: CorpusOptions) -> frozenset[str]:
    """Return the recordings of ACL 60/60 dev that are excluded from training; none where it is no training corpus.

    They come first in the order of sampling. UserError where all or none of them would be trained on.
    """
    if all(source.part != DEV_FOLDER for source in options.sources):
        return frozenset()
    names = {candidate.recording for candidate in acl6060.read(data / DEV_FOLDER, languages)}
    if not 0 < options.held_out_recordings < len(names):
        raise UserError(
            "recipe: corpus.held_out_recordings",
            f"{options.held_out_recordings} of the {len(names)} recordings of {DEV_FOLDER}, which is a training corpus",
            f"write 1 to {len(names) - 1}: dev loss is measured on recordings that are not trained on",
        )
    ordered = sorted(names, key=lambda name: rank(options.seed, "held out", name))
    return frozenset(ordered[: options.held_out_recordings])


def _without(read: Reader, recordings: frozenset[str]) -> Reader:
    """Return a reader that leaves out some recordings."""

    def rest(folder: Path, languages: Sequence[str]) -> Iterator[CorpusUtterance | Unparsed]:
        for candidate in read(folder, languages):
            if isinstance(candidate, Unparsed) or candidate.recording not in recordings:
                yield candidate

    return rest


def _training_corpora(options: CorpusOptions, held_out: frozenset[str]) -> list[Corpus]:
    """Return the recipe's corpora, ACL 60/60 dev without the recordings that are held out."""
    return [
        Corpus(
            name=source.name,
            folder=source.part,
            read=_without(reader_of(source), held_out) if source.part == DEV_FOLDER else reader_of(source),
            quota=source.utterances,
        )
        for source in options.sources
    ]


def _dev_corpus(options: CorpusOptions) -> Corpus:
    """Return ACL 60/60 dev, read from the same audio as in training where it is a training corpus too."""
    source = next((source for source in options.sources if source.part == DEV_FOLDER), ACL_6060_DEV)
    return Corpus(name=ACL_6060_DEV.name, folder=DEV_FOLDER, read=reader_of(source))


def build_corpus(
    data: Path,
    options: CorpusOptions,
    languages: Sequence[str],
    dev_languages: Sequence[str],
    window_seconds: float,
    out: Path,
) -> dict[str, Any]:
    """Write train.jsonl, dev.jsonl (all of ACL 60/60 dev), audio.jsonl and corpus_report.json into `out`.

    Returns the report.

    languages: target languages that are trained; dev_languages: those that ACL 60/60 dev is read in. Raises UserError
    for folders that are not of their layout, for corpora that hold fewer utterances than the recipe requests, and
    where more than options.max_skipped_share cannot be used.
    """
    held_out = held_out_recordings(data, sorted(dev_languages), options)
    used: set[str] = set()
    report: dict[str, Any] = {"held_out": sorted(held_out)}
    for part, sources, wanted in (
        ("train", _training_corpora(options, held_out), {name: options.utterances[name] for name in sorted(languages)}),
        ("dev", [_dev_corpus(options)], dict.fromkeys(sorted(dev_languages), 0)),
    ):
        sample = sample_utterances(
            sources,
            data,
            wanted,
            seed=options.seed,
            window_seconds=window_seconds,
            out=out,
            label=f"corpus {part}",
            allow_fewer=options.allow_fewer,
        )
        names = ", ".join(corpus.name for corpus in sources)
        check(sample, sources, wanted, options, f"corpus {part} ({names})")
        write_corpus(out / f"{part}.jsonl", _interleaved(sample))
        used |= {u.audio for utterances in sample.taken.values() for u in utterances}
        report[part] = describe(sample, wanted)
        _print_summary(part, report[part])
        _print_cancelled(part, sample.cancelled)
    extracted = {name for name in used if name.startswith(BESIDE)}
    remove_unused(out / EXTRACTED, {out / name.removeprefix(BESIDE) for name in extracted})
    write_audio_digests(out, data, used - extracted)
    write_text(out / REPORT, canonical_json(report))
    return report
