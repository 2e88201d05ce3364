"""Write the weights file of a packed model in any order of tensors, with a journal of those that are on the disk.

All offsets are known before the first tensor, so the file has its full length from the start. A packed weight is noted
in the journal after its bytes are on the disk; a run that finds file and journal resumes with what is not noted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np
import torch

from submission.model.safetensors_header import file_bytes, header_bytes, lay_out
from submission.store.digests import read_journal


@dataclass(slots=True, kw_only=True)
class WeightsFile:
    """The weights file while it is written: where each tensor belongs, and which are there."""

    file: BinaryIO
    journal: TextIO | None
    begin: dict[str, int]
    """Offset in the file of each stored tensor."""
    report: dict[str, Any]
    """Codec, bytes and error of each packed weight, by name; at first of those that an earlier run packed."""

    def write(self, parts: Mapping[str, torch.Tensor]) -> None:
        """Write tensors, by their stored names, to their places."""
        for name, part in parts.items():
            self.write_rows(name, [part])

    def write_rows(self, name: str, blocks: Iterable[torch.Tensor]) -> None:
        """Write one tensor, by its stored name, that comes in blocks of whole rows, in order."""
        self.file.seek(self.begin[name])
        for part in blocks:
            data = part.contiguous().view(-1).view(torch.uint8).numpy() if part.numel() else np.empty(0, dtype=np.uint8)
            self.file.write(data.data)

    def note(self, name: str, entry: dict[str, Any]) -> None:
        """Record that the parts of a packed weight are on the disk."""
        self.report[name] = entry
        if self.journal is not None:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.journal.write(json.dumps([name, entry], sort_keys=True) + "\n")
            self.journal.flush()


@contextmanager
def open_weights(
    path: Path, stored: dict[str, tuple[str, tuple[int, ...]]], journal: Path | None
) -> Iterator[WeightsFile]:
    """Open the file for these tensors, name -> (dtype, shape), as a killed run of the same layout left it, or empty."""
    head = header_bytes(stored)
    begun = journal is not None and journal.is_file() and path.is_file() and _begins_with(path, head)
    done = dict(read_journal(journal)) if journal is not None and begun else {}
    if journal is not None and not begun:
        journal.unlink(missing_ok=True)  # before the file is written again: a journal never lists more than there is
    with ExitStack() as stack:
        file = stack.enter_context(path.open("r+b" if begun else "wb"))
        if not begun:
            file.write(head)
            file.truncate(file_bytes(stored))
        notes = stack.enter_context(journal.open("a", encoding="utf-8", newline="\n")) if journal else None
        places = {name: len(head) + info.begin for name, info in lay_out(stored).items()}
        yield WeightsFile(file=file, journal=notes, begin=places, report=done)
    assert path.stat().st_size == file_bytes(stored), f"{path}: {path.stat().st_size} bytes"


def _begins_with(path: Path, head: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(head)) == head
