"""From segments of speech to one hypothesis a segment.

Segments of like length share a batch, the longest first, so that memory runs out at once or not at all and little
is padded. A batch is padded on the left and masked; nothing of a row depends on its neighbours. Which segments
share a batch depends on their lengths alone, never on what an earlier, killed run had already done: a resumed run
decodes the very batches that were missing, whole, and ends with the bytes that an undisturbed run gives.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import GenerationConfig

from evaluate.hypotheses import Hypothesis, append, make_hypothesis, recover_journal, write_hypotheses
from submission.errors import UserError
from submission.progress import progress
from submission.recipe import DecodeOptions
from submission.runtime.audio import duration_samples, read_slice
from submission.runtime.prompt import build_inputs, end_token_id, shortest_samples, window_samples
from submission.segments import Segment, segment_ids

if TYPE_CHECKING:
    from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run of `decode` did."""

    segments: int
    decoded: int
    """Segments decoded by this run; the others were there already."""
    audio_seconds: float
    """Length of the segments decoded by this run."""
    seconds: float
    flags: dict[str, int]
    """Flag -> number of hypotheses that have it, over all segments."""

    def __str__(self) -> str:
        kept = self.segments - self.decoded
        flags = ", ".join(f"{count} {flag}" for flag, count in sorted(self.flags.items())) or "no flags"
        seconds = max(self.seconds, 1e-9)
        return (
            f"{self.segments:,} segments ({kept:,} from an earlier run), {self.audio_seconds:,.0f} s of audio in "
            f"{self.seconds:,.1f} s: {self.decoded / seconds:,.1f} segments/s, "
            f"real-time factor {self.seconds / max(self.audio_seconds, 1e-9):.3f}; {flags}"
        )


def decode(
    model: Qwen2AudioForConditionalGeneration,
    processor: Qwen2AudioProcessor,
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
    token that ends a hypothesis; generation knows no other. label: what the progress line is called. Raises
    UserError, before anything is decoded, for a missing recording and for a segment past a recording's end.
    """
    _check_recordings(segments, recordings)
    names = segment_ids(segments)
    done = recover_journal(out)
    if foreign := sorted(done.keys() - set(names)):
        raise UserError(str(out), f"holds {len(foreign)} hypotheses of other segments ({foreign[0]})", "remove it")
    settings = _generation_settings(processor, options, end_token)
    batches = [
        batch
        for batch in form_batches(segments, options.batch_size)
        if any(names[i] not in done for i in batch)  # a batch that was torn is decoded whole
    ]
    todo = sum(map(len, batches))
    started = time.monotonic()
    with (
        out.open("a", encoding="utf-8", newline="\n") as journal,
        progress(label, todo, "segments") as tick,
        _settings_of(model, settings),
    ):
        for batch in batches:
            pieces = [(names[i], segments[i]) for i in batch]
            hypotheses = _decode_batch(model, processor, pieces, recordings, prompt, settings)
            append(journal, hypotheses)
            done |= {hypothesis.segment: hypothesis for hypothesis in hypotheses}
            tick(len(batch))
    write_hypotheses(out, [done[name] for name in names])
    return Outcome(
        segments=len(segments),
        decoded=todo,
        audio_seconds=sum(segments[i].seconds for batch in batches for i in batch),
        seconds=time.monotonic() - started,
        flags=dict(Counter(flag for hypothesis in done.values() for flag in hypothesis.flags)),
    )


def form_batches(segments: Sequence[Segment], batch_size: int) -> list[list[int]]:
    """Return the segments' numbers in batches of like length, the longest first; equals keep their order."""
    order = sorted(range(len(segments)), key=lambda i: (segments[i].start - segments[i].end, i))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


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


def _decode_batch(
    model: Qwen2AudioForConditionalGeneration,
    processor: Qwen2AudioProcessor,
    pieces: Sequence[tuple[str, Segment]],
    recordings: Mapping[str, Path],
    prompt: str,
    settings: GenerationConfig,
) -> list[Hypothesis]:
    """Return the hypotheses of one batch of (id, segment); segments that the model cannot hear get empty ones."""
    window, shortest = window_samples(processor), shortest_samples(processor)
    heard = [(name, segment) for name, segment in pieces if segment.end - segment.start >= shortest]
    results = [make_hypothesis(name, "", ["too_short"]) for name, s in pieces if s.end - s.start < shortest]
    if not heard:
        return results
    waveforms = [
        read_slice(recordings[segment.recording], segment.start, min(segment.end, segment.start + window))
        for _, segment in heard
    ]
    inputs = build_inputs(processor, waveforms, [prompt] * len(heard), names=[name for name, _ in heard])
    inputs = {key: value.to(model.device) for key, value in inputs.items()}
    with torch.inference_mode():
        sequences = model.generate(**inputs, generation_config=settings)
    answers = sequences[:, inputs["input_ids"].shape[1] :].tolist()
    for (name, segment), answer in zip(heard, answers, strict=True):
        text, ended = _until_end(processor, answer, settings.eos_token_id)
        clipped = segment.end - segment.start > window
        flags = [flag for flag, holds in (("truncated", not ended), ("clipped", clipped)) if holds]
        results.append(make_hypothesis(name, text, flags))
    return results


def _until_end(processor: Qwen2AudioProcessor, answer: list[int], end: int) -> tuple[str, bool]:
    """Return the text before the end token, and whether there was one."""
    ended = end in answer
    tokens = answer[: answer.index(end)] if ended else answer
    text = processor.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text, ended


def _generation_settings(processor: Qwen2AudioProcessor, options: DecodeOptions, end_token: str) -> GenerationConfig:
    """Return all that generation may know; what is not said here is the library's default, not the checkpoint's."""
    return GenerationConfig(
        do_sample=False,
        num_beams=options.num_beams,
        max_new_tokens=options.max_new_tokens,
        eos_token_id=end_token_id(processor, end_token),
        pad_token_id=processor.tokenizer.pad_token_id,
    )


@contextmanager
def _settings_of(model: Qwen2AudioForConditionalGeneration, settings: GenerationConfig) -> Iterator[None]:
    """Lend the model generation settings: `generate` fills every gap in what it is given from the model's own.

    The published checkpoint's own sample, and penalize repetition.
    """
    own, training = model.generation_config, model.training
    model.generation_config = settings
    model.eval()
    try:
        yield
    finally:
        model.generation_config = own
        model.train(training)
