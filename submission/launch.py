"""One stage built by several processes, as `accelerate launch` and `torchrun` start them.

The launcher runs the same command once per device. Rank 0 alone deals with the store: it takes the stage's lock, finds
the artifact or builds it, and publishes it. When it begins to build it tells the others in which folder, and they take
part; where there is nothing to build it tells them so, and they go home. So the lock is never waited for twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from submission.store import Stage, Store

PATIENCE = timedelta(days=7)
"""How long the others wait for rank 0, which may be waiting for another build of the same stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Which of how many processes this one is."""

    rank: int
    processes: int

    def wait(self) -> None:
        """Return when every process has come here; for a launch that is joined."""
        if self.processes > 1:
            import torch.distributed as distributed

            distributed.barrier()


def launched() -> Launch:
    """Return what a launcher says in RANK and WORLD_SIZE; the only process where there is none."""
    return Launch(rank=int(os.environ.get("RANK", "0")), processes=int(os.environ.get("WORLD_SIZE", "1")))


@contextmanager
def joined() -> Iterator[Launch]:
    """Form the group of the launched processes for a while, where it is not formed already."""
    launch = launched()
    if launch.processes == 1:
        yield launch
        return
    import torch.distributed as distributed

    formed = distributed.is_initialized()
    if not formed:
        distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield launch
    finally:
        if not formed:
            distributed.destroy_process_group()


def obtain_together(store: Store, stage: Stage, make: Callable[[Path], None]) -> Path | None:
    """Return the artifact's folder, letting make(folder) of every process fill it where it is missing.

    make resumes from what a killed run left. Returns None in every process but the first. The store must be a folder
    that all processes see.
    """
    launch = launched()
    if launch.processes == 1:
        return store.obtain(stage, make, resume=True)
    import torch
    from accelerate.state import PartialState

    PartialState(cpu=not torch.cuda.is_available())  # forms the group of processes
    meeting = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)

    def pass_on(folder: str | None) -> str | None:
        message = [folder]
        torch.distributed.broadcast_object_list(message, src=0, group=meeting)
        return message[0]

    if launch.rank > 0:
        folder = pass_on(None)
        if folder is not None:
            make(Path(folder))
        torch.distributed.destroy_process_group()
        return None
    told = False

    def make_together(folder: Path) -> None:
        nonlocal told
        told = True
        pass_on(str(folder.absolute()))
        make(folder)

    try:
        path = store.obtain(stage, make_together, resume=True)
    finally:
        if not told:
            pass_on(None)
    torch.distributed.destroy_process_group()
    return path
