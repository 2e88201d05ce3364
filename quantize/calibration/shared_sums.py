"""Sums that several processes took of their shares of the batches, added up in the order of the processes.

Every key has a process that owns it. Each process writes its sums of the keys that others own to a file, waits until
all have written theirs, and adds up the keys that it owns, so that what follows from a sum, as its factorization, is
shared too. Floating-point sums thus depend on the number of processes, and on nothing else.

No sum counts twice, whatever a killed run left: a process reads only keys that another one announced in this exchange,
from a file that it has written since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from quantize.calibration.moment_files import read_tensors, write_tensors
from submission.store.launch import Launch


class SharedSums:
    """Adds up sums over processes; each process must make every call."""

    def __init__(self, launch: Launch, folder: Path, device: torch.device) -> None:
        """folder: one that all processes see; device: of sums that this process owns and has no part in."""
        self._launch, self._folder, self._device = launch, folder, device

    def add_up(self, sums: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the sums over all processes of the keys that this one owns; a single process's own as they are.

        sums: by key, where this process has it; of a key all have the same shape.
        """
        launch = self._launch
        if launch.processes == 1:
            return dict(sums)
        sizes = launch.gather({key: tensor.numel() for key, tensor in sums.items()})
        owners = dealt({key: size for each in sizes for key, size in each.items()}, launch.processes)
        self._folder.mkdir(parents=True, exist_ok=True)
        write_tensors(self._file(launch.rank), {k: t for k, t in sums.items() if owners[k] != launch.rank})
        launch.barrier()
        owned = [key for key, owner in owners.items() if owner == launch.rank]
        totals = {key: self._total(key, [r for r, each in enumerate(sizes) if key in each], sums) for key in owned}
        launch.barrier()  # all have read
        self._file(launch.rank).unlink()
        return totals

    def add_counts(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Return the counts of all keys, over all processes."""
        total: dict[str, int] = {}
        for each in self._launch.gather(dict(counts)):
            for key, count in each.items():
                total[key] = total.get(key, 0) + count
        return total

    def _total(self, key: str, ranks: Iterable[int], own: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the sum of a key over the processes that have it, in their order."""
        total, device = None, own[key].device if key in own else self._device
        for rank in ranks:
            part = own[key] if rank == self._launch.rank else read_tensors(self._file(rank), key)[0].to(device)
            total = part if total is None else total.add_(part)
        assert total is not None, "a key is announced by a process that has it"
        return total

    def _file(self, rank: int) -> Path:
        return self._folder / f"{rank}.safetensors"


def dealt(sizes: Mapping[str, int], processes: int) -> dict[str, int]:
    """Return key -> the process that owns it: in turn, from the largest key to the smallest."""
    order = sorted(sizes, key=lambda key: (-sizes[key], key))
    return {key: turn % processes for turn, key in enumerate(order)}
