"""Decode segments of speech into one hypothesis a segment.

A batch is padded on the left and masked; a row does not depend on the other rows. Which segments share a batch
depends on their lengths alone (`evaluate.decoding.batching`), so a resumed run decodes exactly the missing batches, and
its file is byte-identical to that of an uninterrupted run. A failed hypothesis is flagged
(`evaluate.decoding.failures`) and, where the recipe names fallbacks, decoded again (`evaluate.decoding.fallbacks`).

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

from evaluate.decoding.audio_batches import NamedSegment, ReadSegment, read_batches
from evaluate.decoding.batching import Capacity, form_batches, in_parts
from evaluate.decoding.fallbacks import apply_fallbacks, flags_of
from evaluate.decoding.generation import Translator, translator
from evaluate.decoding.hypotheses import Hypothesis, append, make_hypothesis, recover_journal, write_hypotheses
from submission.errors import UserError
from submission.progress import progress
from submission.runtime.audio import checked_length
from submission.runtime.prompt import end_token_id
from submission.store.launch import Launch, process_group
from submission.system.recipe.decoding_options import DecodeOptions
from submission.text.segments import Segment, segment_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeSummary:
    """Counts and times of one run of `decode`."""

    segments: int
    decoded: int
    """Segments decoded by this run, all processes together; the others were decoded by an earlier run."""
    audio_seconds: float
    """Length of the segments decoded by this run."""
    seconds: float
    flags: dict[str, int]
    """Flag -> number of hypotheses that have it, over all segments."""
    fallbacks: dict[str, int]
    """Fallback -> number of failed hypotheses that it replaced; empty text -> number of those that none replaced."""

    def __str__(self) -> str:
        kept = self.segments - self.decoded
        flags = ", ".join(f"{count} {flag}" for flag, count in sorted(self.flags.items())) or "no flags"
        kept_from = ", ".join(
            f"{count} replaced by fallback {name}" if name else f"{count} failed with every fallback"
            for name, count in self.fallbacks.items()
        )
        seconds = max(self.seconds, 1e-9)
        return (
            f"{self.segments:,} segments ({kept:,} from an earlier run), {self.audio_seconds:,.0f} s of audio in "
            f"{self.seconds:,.1f} s: {self.decoded / seconds:,.1f} segments/s, "
            f"real-time factor {real_time_factor(self.seconds, self.audio_seconds)}; {flags}"
            f"{f'; {kept_from}' if kept_from else ''}"
        )


def real_time_factor(seconds: float, audio_seconds: float) -> str:
    """Return the real-time factor, seconds of work per second of audio, as text."""
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
) -> DecodeSummary:
    """Write one hypothesis for each segment, in order, to the file `out`, resuming a killed run.

    recordings: file name of a recording -> its path. prompt: with the target language filled in. end_token: the only
    token that ends a hypothesis. label: of the progress line. Started by a launcher, every process must call this with
    the same arguments; when it returns in the first process, the file is complete.
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
            if any(names[i] not in done for i in batch)  # an incomplete batch is decoded again as a whole
        ]
        share = [[(names[i], segments[i]) for i in batch] for batch in batches[launch.rank :: launch.processes]]
        with translator(model, processor, prompt, options, end_token) as lent:
            name = _progress_label(label, launch)
            _decode_share(lent, share, recordings, options, _journal(out, launch.rank), name)
        hypotheses = _merge(launch, out, names)
    return DecodeSummary(
        segments=len(segments),
        decoded=sum(map(len, batches)),
        audio_seconds=sum(segments[i].seconds for batch in batches for i in batch),
        seconds=time.monotonic() - started,
        flags=dict(Counter(flag for hypothesis in hypotheses for flag in hypothesis.flags)),
        fallbacks=dict(Counter(hypothesis.fallback.kept for hypothesis in hypotheses if hypothesis.fallback)),
    )


def _progress_label(label: str, launch: Launch) -> str:
    return f"{label} [{launch.rank + 1}/{launch.processes}]" if launch.processes > 1 else label


# --- the journals: the first process's is the file itself, the others' stand beside it ---


def _journal(out: Path, rank: int) -> Path:
    return out.with_name(f"{out.name}.{rank}") if rank else out


def _journals(out: Path) -> list[Path]:
    """Return every journal of a file, the first process's first, of however many processes there were."""
    return [out, *sorted(out.parent.glob(f"{glob.escape(out.name)}.[0-9]*"))]


def _read_journals(out: Path) -> dict[str, Hypothesis]:
    """Return the hypotheses of all journals by segment; incomplete lines are removed."""
    return {name: hypothesis for path in _journals(out) for name, hypothesis in recover_journal(path).items()}


def _begin(launch: Launch, out: Path, names: Sequence[str]) -> dict[str, Hypothesis]:
    """Return the hypotheses of earlier runs, the same in every process, before any of them writes."""
    if launch.rank == 0:
        _read_journals(out)  # truncates incomplete lines, so that the others only read
    launch.barrier()
    done = _read_journals(out)
    launch.barrier()
    if foreign := sorted(done.keys() - set(names)):
        raise UserError(
            str(out), f"holds {len(foreign)} hypotheses of other segments (first: {foreign[0]})", "remove the file"
        )
    return done


def _merge(launch: Launch, out: Path, names: Sequence[str]) -> list[Hypothesis]:
    """Return the hypotheses of all processes in order; the first process writes them to the file, its journals gone."""
    launch.barrier()
    done = _read_journals(out)
    launch.barrier()  # all must have read the journals before the first process removes them
    hypotheses = [done[name] for name in names]
    if launch.rank == 0:
        write_hypotheses(out, hypotheses)
        for path in _journals(out)[1:]:
            path.unlink()
    return hypotheses


def _check_recordings(segments: Sequence[Segment], recordings: Mapping[str, Path]) -> None:
    ends: dict[str, int] = {}
    for segment in segments:
        ends[segment.recording] = max(ends.get(segment.recording, 0), segment.end)
    if missing := sorted(ends.keys() - recordings.keys()):
        raise UserError(
            "decode",
            f"{len(missing)} of {len(ends)} recordings of the segments are missing (first: {missing[0]})",
            "add the recordings, or segment only those that exist",
        )
    for recording, end in ends.items():
        length = checked_length(recordings[recording])
        if end > length:
            raise UserError(
                str(recordings[recording]),
                f"a segment ends at sample {end}, the recording at {length}",
                "check that segments and recording belong together",
            )


def _decode_share(
    translator: Translator,
    share: Sequence[Sequence[NamedSegment]],
    recordings: Mapping[str, Path],
    options: DecodeOptions,
    path: Path,
    label: str,
) -> None:
    """Append the hypotheses of batches to a journal, part by part where a batch does not fit into memory."""
    audio = 0.0

    def note(seconds: float) -> str:
        return f"{audio / 3600:.2f} h of audio, real-time factor {real_time_factor(seconds, audio)}"

    def work(part: Sequence[ReadSegment]) -> list[Hypothesis]:
        return decode_batch(translator, part, options.fallbacks)

    capacity = Capacity(rows=options.batch_size, label=label)
    with (
        path.open("a", encoding="utf-8", newline="\n") as journal,
        progress(label, sum(map(len, share)), "segments", note) as tick,
    ):
        for batch in read_batches(translator.processor, share, recordings):
            for hypotheses in in_parts(batch, capacity, work):
                append(journal, hypotheses)
                finished = {hypothesis.segment for hypothesis in hypotheses}
                audio += sum(segment.seconds for (name, segment), _ in batch if name in finished)
                tick(len(hypotheses))


def decode_batch(translator: Translator, batch: Sequence[ReadSegment], fallbacks: tuple[str, ...]) -> list[Hypothesis]:
    """Return the hypotheses of one batch: empty for too short segments, decoded again by fallbacks where they fail."""
    results = [make_hypothesis(name, "", ["too_short"]) for (name, _), audio in batch if audio is None]
    audios = [audio for _, audio in batch if audio is not None]
    generations = translator.generate(audios) if audios else []
    for audio, generation in zip(audios, generations, strict=True):
        clipped = ["clipped"] if audio.clipped else []
        flags = [*flags_of(generation, audio.seconds), *clipped]
        hypothesis = make_hypothesis(audio.name, generation.text, flags)
        results.append(apply_fallbacks(translator, audio, hypothesis, fallbacks) if fallbacks else hypothesis)
    return results
