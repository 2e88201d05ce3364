"""One stage built by several processes, as `accelerate launch` and `torchrun` start them.

The launcher runs the same command once per device. Rank 0 alone deals with the store: it takes the stage's lock, finds
the artifact or builds it, and publishes it. When it begins to build it tells the others in which folder, and they take
part; where there is nothing to build it tells them so, and they go home. So the lock is never waited for twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from submission.errors import UserError
from submission.store.store import Stage, Store

PATIENCE = timedelta(days=7)
"""How long the others wait for rank 0, which may be waiting for another build of the same stage."""
MPI_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where mpirun says how many processes it started: those that accelerate would read, and form a group by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Which of how many processes this one is."""

    rank: int
    processes: int

    def barrier(self) -> None:
        """Return when every process has come here; for a launch that is joined."""
        if self.processes > 1:
            import torch.distributed as distributed

            distributed.barrier()

    def broadcast(self, word: bool) -> bool:
        """Return what the first process says, when every process has come here; for a launch that is joined."""
        if self.processes == 1:
            return word
        import torch.distributed as distributed

        said = [word]
        distributed.broadcast_object_list(said, src=0)
        return said[0]


def launched() -> Launch:
    """Return what a launcher says in RANK and WORLD_SIZE; the only process where there is none.

    Raises UserError where several processes were asked for in a way that tells none of them of the others: each would
    take itself for the only one.
    """
    if "RANK" not in os.environ:
        _refuse_unranked(os.environ)
    return Launch(rank=int(os.environ.get("RANK", "0")), processes=int(os.environ.get("WORLD_SIZE", "1")))


def _refuse_unranked(environment: Mapping[str, str]) -> None:
    """Raise UserError for a launcher that does not speak in RANK and WORLD_SIZE."""
    fix = "start `torchrun --standalone --nproc-per-node N -m ...` or `accelerate launch --multi_gpu --num_processes N`"
    for name in MPI_SIZES:
        if environment.get(name, "1") not in ("", "0", "1"):
            raise UserError(f"{name}={environment[name]}", "started by MPI, which says no RANK and WORLD_SIZE", fix)
    # Its launcher for one process sets both of these where --num_processes is over 1, and starts one.
    if "ACCELERATE_USE_CPU" in environment and "MASTER_ADDR" in environment:
        what = "asks for several processes and starts one, as it does with --cpu and where it sees fewer than two GPUs"
        raise UserError("accelerate launch", what, f"{fix}: both start them on processors too")


@contextmanager
def process_group() -> Iterator[Launch]:
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
