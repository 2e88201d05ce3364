"""From segments of speech to one hypothesis a segment.

A batch is padded on the left and masked; nothing of a row depends on its neighbours. Which segments share a batch
depends on their lengths alone (`evaluate.decoding.batching`), so a resumed run decodes the very batches that were missing,
whole, and ends with the bytes that an undisturbed run gives. A hypothesis that fails is flagged (`evaluate.decoding.failures`)
and, where the recipe asks for it, decoded again (`evaluate.decoding.fallbacks`).

Started by a launcher, every process decodes its share of the missing batches into a journal of its own beside the
file, and the first one merges them: N processes give the file that one gives.
"""

from __future__ import annotations

import glob
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evaluate.decoding.batching import Capacity, form_batches, in_parts
from evaluate.decoding.fallbacks import Attempt, flags_of, mend
from evaluate.decoding.generation import Translator, translator
from evaluate.decoding.hypotheses import Hypothesis, append, make_hypothesis, recover_journal, write_hypotheses
from submission.errors import UserError
from submission.progress import progress
from submission.runtime.audio import duration_samples, read_slice
from submission.runtime.prompt import end_token_id, shortest_samples, window_samples
from submission.store.launch import Launch, process_group
from submission.system.recipe import DecodeOptions
from submission.text.segments import SAMPLE_RATE, Segment, segment_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

Piece = tuple[str, Segment]
"""A segment with its id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run of `decode` did."""

    segments: int
    decoded: int
    """Segments decoded by this run, all processes together; the others were there already."""
    audio_seconds: float
    """Length of the segments decoded by this run."""
    seconds: float
    flags: dict[str, int]
    """Flag -> number of hypotheses that have it, over all segments."""
    mended: dict[str, int]
    """Attempt -> number of failed hypotheses that it replaced; empty text -> of those that none could."""

    def __str__(self) -> str:
        kept = self.segments - self.decoded
        flags = ", ".join(f"{count} {flag}" for flag, count in sorted(self.flags.items())) or "no flags"
        mends = ", ".join(f"{count} mended by {how}" if how else f"{count} not" for how, count in self.mended.items())
        seconds = max(self.seconds, 1e-9)
        return (
            f"{self.segments:,} segments ({kept:,} from an earlier run), {self.audio_seconds:,.0f} s of audio in "
            f"{self.seconds:,.1f} s: {self.decoded / seconds:,.1f} segments/s, "
            f"real-time factor {real_time_factor(self.seconds, self.audio_seconds)}; {flags}"
            f"{f'; {mends}' if mends else ''}"
        )


def real_time_factor(seconds: float, audio_seconds: float) -> str:
    """Return the seconds of work for a second of audio as people read it."""
    return f"{seconds / max(audio_seconds, 1e-9):.3f}"


def decode(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    segments: Sequence[Segment],
    recordings: Mapping[str, Path],
    prompt: str,
    options: DecodeOptions,
    out: Path,
    *,
    end_token: str,
    label: str = "decode",
) -> Outcome:
    """Write one hypothesis for each segment, in order, to the file `out`, going on where a killed run stopped.

    recordings: file name of a recording -> its path. prompt: with the target language filled in. end_token: the
    token that ends a hypothesis; generation knows no other. label: what the progress line is called. Started by a
    launcher, every process must come here with the same arguments, and to a second call in the same `process_group`; when the
    first one returns, the file is there.
    Raises UserError, before anything is decoded, for a missing recording and for a segment past a recording's end.
    """
    _check_recordings(segments, recordings)
    end_token_id(processor, end_token)  # an unknown one is refused before a file is made
    names = segment_ids(segments)
    started = time.monotonic()
    with process_group() as launch:
        done = _begin(launch, out, names)
        batches = [
            batch
            for batch in form_batches(segments, options)
            if any(names[i] not in done for i in batch)  # a batch that was torn is decoded whole
        ]
        share = [[(names[i], segments[i]) for i in batch] for batch in batches[launch.rank :: launch.processes]]
        with translator(model, processor, prompt, options, end_token) as asked:
            _decode_share(asked, share, recordings, options, _journal(out, launch.rank), _called(label, launch))
        launch.barrier()
        done = _read_journals(out)
        launch.barrier()  # the others must have read what the first one now takes away
        hypotheses = [done[name] for name in names]
        if launch.rank == 0:
            write_hypotheses(out, hypotheses)
            for path in _journals(out)[1:]:
                path.unlink()
    return Outcome(
        segments=len(segments),
        decoded=sum(map(len, batches)),
        audio_seconds=sum(segments[i].seconds for batch in batches for i in batch),
        seconds=time.monotonic() - started,
        flags=dict(Counter(flag for hypothesis in hypotheses for flag in hypothesis.flags)),
        mended=dict(Counter(hypothesis.mend.kept for hypothesis in hypotheses if hypothesis.mend)),
    )


def _called(label: str, launch: Launch) -> str:
    return f"{label} [{launch.rank + 1}/{launch.processes}]" if launch.processes > 1 else label


# --- the journals: the first process's is the file itself, the others' stand beside it ---


def _journal(out: Path, rank: int) -> Path:
    return out.with_name(f"{out.name}.{rank}") if rank else out


def _journals(out: Path) -> list[Path]:
    """Return every journal of a file, the first process's first, of however many processes there were."""
    return [out, *sorted(out.parent.glob(f"{glob.escape(out.name)}.[0-9]*"))]


def _read_journals(out: Path) -> dict[str, Hypothesis]:
    """Return the hypotheses of all journals by segment; what is torn is cut off."""
    return {name: hypothesis for path in _journals(out) for name, hypothesis in recover_journal(path).items()}


def _begin(launch: Launch, out: Path, names: Sequence[str]) -> dict[str, Hypothesis]:
    """Return what earlier runs have done, the same in every process, before any of them writes."""
    if launch.rank == 0:
        _read_journals(out)  # mends them, so that the others only read
    launch.barrier()
    done = _read_journals(out)
    launch.barrier()
    if foreign := sorted(done.keys() - set(names)):
        raise UserError(str(out), f"holds {len(foreign)} hypotheses of other segments ({foreign[0]})", "remove it")
    return done


def _check_recordings(segments: Sequence[Segment], recordings: Mapping[str, Path]) -> None:
    ends: dict[str, int] = {}
    for segment in segments:
        ends[segment.recording] = max(ends.get(segment.recording, 0), segment.end)
    if missing := sorted(ends.keys() - recordings.keys()):
        raise UserError(
            "decode",
            f"{len(missing)} of {len(ends)} segmented recordings are missing (first: {missing[0]})",
            "put the recordings there, or segment those that are there",
        )
    for recording, end in ends.items():
        length = duration_samples(recordings[recording])
        if end > length:
            raise UserError(
                str(recordings[recording]),
                f"a segment ends at sample {end}, the recording at {length}",
                "check that segments and recording belong together",
            )


def _decode_share(
    asked: Translator,
    share: Sequence[Sequence[Piece]],
    recordings: Mapping[str, Path],
    options: DecodeOptions,
    path: Path,
    label: str,
) -> None:
    """Append the hypotheses of batches to a journal, part by part where a batch does not fit into memory."""
    audio = 0.0

    def note(seconds: float) -> str:
        return f"{audio / 3600:.2f} h of audio, real-time factor {real_time_factor(seconds, audio)}"

    def work(pieces: Sequence[Piece]) -> list[Hypothesis]:
        return decode_batch(asked, pieces, recordings, options.mend)

    capacity = Capacity(rows=options.batch_size, label=label)
    with (
        path.open("a", encoding="utf-8", newline="\n") as journal,
        progress(label, sum(map(len, share)), "segments", note) as tick,
    ):
        for batch in share:
            for hypotheses in in_parts(batch, capacity, work):
                append(journal, hypotheses)
                finished = {hypothesis.segment for hypothesis in hypotheses}
                audio += sum(segment.seconds for name, segment in batch if name in finished)
                tick(len(hypotheses))


def decode_batch(
    asked: Translator, pieces: Sequence[Piece], recordings: Mapping[str, Path], attempts: tuple[Attempt, ...]
) -> list[Hypothesis]:
    """Return the hypotheses of one batch; segments that the model cannot hear get empty ones, the failed are mended."""
    window, shortest = window_samples(asked.processor), shortest_samples(asked.processor)
    heard = [(name, segment) for name, segment in pieces if segment.end - segment.start >= shortest]
    results = [make_hypothesis(name, "", ["too_short"]) for name, s in pieces if s.end - s.start < shortest]
    if not heard:
        return results
    waveforms = [
        read_slice(recordings[segment.recording], segment.start, min(segment.end, segment.start + window))
        for _, segment in heard
    ]
    answers = asked.generate(waveforms, [name for name, _ in heard])
    for (name, segment), waveform, answer in zip(heard, waveforms, answers, strict=True):
        clipped = ["clipped"] if segment.end - segment.start > window else []
        hypothesis = make_hypothesis(name, answer.text, [*flags_of(answer, len(waveform) / SAMPLE_RATE), *clipped])
        results.append(mend(asked, waveform, hypothesis, attempts) if attempts else hypothesis)
    return results
