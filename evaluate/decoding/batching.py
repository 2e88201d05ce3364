"""Group segments into batches, and split a batch that does not fit into memory.

Segments of similar length share a batch, the longest first, so that memory runs out early or not at all and padding is
small. A batch is full at a number of rows or at an amount of audio, whichever comes first. The batches depend on the
segments' lengths alone: not on the progress of an earlier, killed run, nor on the number of processes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from submission.errors import UserError
from submission.system.recipe.decoding_options import DecodeOptions
from submission.text.segments import SAMPLE_RATE, Segment

T = TypeVar("T")
R = TypeVar("R")

# Part of PyTorch's message on a CPU, where it raises a plain RuntimeError.
NO_MEMORY = "DefaultCPUAllocator"


def form_batches(segments: Sequence[Segment], options: DecodeOptions) -> list[list[int]]:
    """Return the segments' indices in batches of similar length, the longest first; equals keep their order.

    A batch has at most `batch_size` rows and `batch_seconds` of audio, each row as long as its longest and counted once
    for each beam. A segment that is longer than that alone is a batch by itself.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(segments)), key=lambda i: (segments[i].start - segments[i].end, i)):
        if not batches or len(batches[-1]) >= most_rows(segments[batches[-1][0]], options):
            batches.append([])
        batches[-1].append(i)
    return batches


def most_rows(longest: Segment, options: DecodeOptions) -> int:
    """Return how many segments, none longer than this one, a batch holds."""
    if not options.batch_seconds:
        return options.batch_size
    row_samples = max(1, longest.end - longest.start) * options.num_beams
    return max(1, min(options.batch_size, int(options.batch_seconds * SAMPLE_RATE) // row_samples))


@dataclass(slots=True)
class Capacity:
    """The number of rows that fit into memory, as far as known; it only shrinks."""

    rows: int
    label: str
    """Name of the work in messages."""

    def shrink(self, rows: int) -> None:
        """Halve a number of rows that did not fit, and print it; UserError for a single row."""
        if rows == 1:
            what = "one segment alone does not fit into memory"
            fix = "lower decode.num_beams or decode.max_new_tokens, free memory, or choose another --device"
            raise UserError(self.label, what, fix)
        self.rows = rows // 2
        print(
            f"{self.label}: out of memory with {rows} segments at once, continuing with {self.rows}",
            file=sys.stderr,
            flush=True,
        )


def in_parts(batch: Sequence[T], capacity: Capacity, work: Callable[[Sequence[T]], R]) -> Iterator[R]:
    """Yield work(part) for parts of a batch as large as fit, in order; where one does not fit, it is halved."""
    begin = 0
    while begin < len(batch):
        part = batch[begin : begin + capacity.rows]
        try:
            result = work(part)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        else:
            yield result
            begin += len(part)
            continue
        # Outside the handler: the error held the frames, and so the tensors, of the failed part.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        capacity.shrink(len(part))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error means that a device or this machine has no memory left for a tensor."""
    return isinstance(error, torch.OutOfMemoryError) or NO_MEMORY in str(error)
