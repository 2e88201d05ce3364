"""Several processes for one system, under `torchrun` (or `accelerate launch --multi_gpu`, which is the same).

Each listens to its share of the recordings and remembers what it heard; after all have, the first one, which finds
everything remembered, makes the stages. So N processes give the bytes that one gives.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Which of how many processes this one is."""

    rank: int
    processes: int

    def share(self, seconds: Sequence[float]) -> list[int]:
        """Return which of the recordings of these lengths are this process's, in order.

        The longest is given out first, each to the process that has least so far.
        """
        loads = [0.0] * self.processes
        mine = []
        for i in sorted(range(len(seconds)), key=lambda i: (-seconds[i], i)):
            rank = loads.index(min(loads))
            loads[rank] += seconds[i]
            if rank == self.rank:
                mine.append(i)
        return sorted(mine)


def launch() -> Launch:
    """Return what a launcher says in RANK and WORLD_SIZE; the only process where there is none."""
    return Launch(rank=int(os.environ.get("RANK", "0")), processes=int(os.environ.get("WORLD_SIZE", "1")))


def wait_for_all() -> None:
    """Return when every process of the launch has come here; RuntimeError where one of them has died."""
    import torch.distributed as distributed

    distributed.init_process_group("gloo", timeout=timedelta(days=7))
    distributed.barrier()
    distributed.destroy_process_group()
