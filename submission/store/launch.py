"""One stage built by several processes, as `accelerate launch` and `torchrun` start them.

The launcher runs the same command once per device. Rank 0 alone uses the store: it takes the stage's lock, finds the
artifact or builds it, and publishes it. When it begins to build it broadcasts the folder, and the other processes take
part; where there is nothing to build it broadcasts that, and they return. So only one process waits for the lock.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from submission.errors import UserError
from submission.progress import progress
from submission.store.store import Stage, StageFunction, Store

Value = TypeVar("Value")

TIMEOUT = timedelta(days=7)
"""How long the other processes wait for rank 0, which may be waiting for another build of the same stage."""
WAITING_SECONDS = 10.0
RENDEZVOUS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What every launched process is given: which it is of how many, and where they meet."""
ALONE = "to run alone: `env -u RANK -u WORLD_SIZE -u LOCAL_RANK COMMAND`; to share the work, start it with torchrun"
MPI_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Variables in which mpirun gives the number of processes; accelerate reads them and forms a group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Which of how many processes this one is."""

    rank: int
    processes: int
    group: Any = field(default=None, compare=False)
    """The process group of torch in which they meet; None: its default one."""

    def barrier(self) -> None:
        """Return when every process has called this; needs a process group."""
        if self.processes > 1:
            import torch.distributed as distributed

            distributed.barrier(group=self.group)

    def broadcast(self, value: Value) -> Value:
        """Return the first process's value when every process has called this; needs a process group."""
        if self.processes == 1:
            return value
        import torch.distributed as distributed

        values = [value]
        distributed.broadcast_object_list(values, src=0, group=self.group)
        return values[0]

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all processes by rank when every process has called this; needs a process group."""
        if self.processes == 1:
            return [value]
        import torch.distributed as distributed

        values: list[Value] = [value] * self.processes
        distributed.all_gather_object(values, value, group=self.group)
        return values

    @contextmanager
    def refused_by_all(self) -> Iterator[None]:
        """Raise in every process the UserError of any process's block, the first one's before the others'.

        Every process must enter the block. None is left behind waiting for one that ended.
        """
        refusal = None
        try:
            yield
        except UserError as error:
            refusal = error
        for other in self.gather(refusal):
            if other is not None:
                raise other

    def progress(self, label: str, total: float, unit: str) -> AbstractContextManager[Callable[[float], None]]:
        """Return `progress` in the first process, and a function that shows nothing in the others."""
        return progress(label, total, unit) if self.rank == 0 else nullcontext(lambda amount: None)


ONE_PROCESS = Launch(rank=0, processes=1)


def launched() -> Launch:
    """Return the launch that RANK and WORLD_SIZE describe; a single process where they are not set.

    Raises UserError for a launcher that starts several processes without setting them: each would act as the only one;
    and for variables that contradict each other, as a pod or a batch header leaves them behind.
    """
    if "RANK" not in os.environ:
        _refuse_unranked(os.environ)
    rank, processes = (_whole_number(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    if processes == 1 and rank == 0:
        return ONE_PROCESS
    lacking = [name for name in RENDEZVOUS if name not in os.environ]
    if lacking or not 0 <= rank < processes:
        wrong = f"{' and '.join(lacking)} not set" if lacking else f"RANK is {rank}"
        raise UserError(f"WORLD_SIZE={processes}", f"says one of {processes} processes, and {wrong}", ALONE)
    return Launch(rank=rank, processes=processes)


def processes_here() -> int:
    """Return how many of the launched processes run on this machine, as launchers say it; 1 where they do not."""
    return max(1, _whole_number("LOCAL_WORLD_SIZE", "1"))


def assigned_device() -> str:
    """Return the GPU that the launcher assigns to this process, the first one without a launcher; else the processor.

    As torch names devices.
    """
    import torch

    return f"cuda:{_whole_number('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def _whole_number(name: str, default: str) -> int:
    text = os.environ.get(name) or default
    if not text.isdecimal():
        raise UserError(f"{name}={text}", "expected a whole number, as launchers set it", ALONE)
    return int(text)


@contextmanager
def said_while_waiting(launch: Launch) -> Iterator[None]:
    """Say after WAITING_SECONDS for whom the block waits, where, and how to run alone."""
    where = ":".join(os.environ.get(name, "?") for name in RENDEZVOUS[2:])
    others = f"the other {launch.processes - 1} of {launch.processes} processes"
    line = f"rank {launch.rank}: waiting for {others} at {where}; {ALONE}"
    timer = threading.Timer(WAITING_SECONDS, print, (line,), {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _refuse_unranked(environment: Mapping[str, str]) -> None:
    """Raise UserError for a launcher that starts several processes and does not set RANK and WORLD_SIZE."""
    fix = "start `torchrun --standalone --nproc-per-node N -m ...` or `accelerate launch --multi_gpu --num_processes N`"
    for name in MPI_SIZES:
        if environment.get(name, "1") not in ("", "0", "1"):
            raise UserError(f"{name}={environment[name]}", "started by MPI, which sets no RANK and WORLD_SIZE", fix)
    # Its launcher for one process sets both of these where --num_processes is over 1, and starts one.
    if "ACCELERATE_USE_CPU" in environment and "MASTER_ADDR" in environment:
        what = "starts one process instead of several, as it does with --cpu and where it sees fewer than two GPUs"
        raise UserError("accelerate launch", what, f"{fix}: both start them on processors too")


@contextmanager
def process_group() -> Iterator[Launch]:
    """Form a group of the launched processes for the duration of the block, in which they may wait for days.

    A group that is there already may be of GPUs, and its collectives end after minutes: it stays, and is not used.
    """
    launch = launched()
    if launch.processes == 1:
        yield launch
        return
    import torch.distributed as distributed

    group = None
    if distributed.is_initialized():
        group = distributed.new_group(backend="gloo", timeout=TIMEOUT)
    else:
        with said_while_waiting(launch):
            distributed.init_process_group("gloo", timeout=TIMEOUT)
    try:
        yield replace(launch, group=group)
    finally:
        distributed.destroy_process_group(group)


def build_together(store: Store, stage: Stage, work: StageFunction) -> Path | None:
    """Return the artifact's folder as `Store.build` does, shared by the launched processes as in `obtain_together`."""
    return obtain_together(store, stage, store.bind(stage, work))


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

    with said_while_waiting(launch):
        PartialState(cpu=not torch.cuda.is_available())  # forms the group of processes
    group = torch.distributed.new_group(backend="gloo", timeout=TIMEOUT)

    def broadcast_folder(folder: str | None) -> str | None:
        message = [folder]
        torch.distributed.broadcast_object_list(message, src=0, group=group)
        return message[0]

    if launch.rank > 0:
        folder = broadcast_folder(None)
        if folder is not None:
            make(Path(folder))
        torch.distributed.destroy_process_group()
        return None
    announced = False

    def make_together(folder: Path) -> None:
        nonlocal announced
        announced = True
        broadcast_folder(str(folder.absolute()))
        make(folder)

    try:
        path = store.obtain(stage, make_together, resume=True)
    finally:
        if not announced:
            broadcast_folder(None)
    torch.distributed.destroy_process_group()
    return path
