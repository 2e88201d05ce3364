"""Multiply with a weight that is decoded in blocks, each in the cache of the core that multiplies with it.

A block lives as long as its product, so a weight's bytes cross the memory bus as codes. Every core takes a share of the
blocks, decodes them and multiplies with torch, which uses one thread there: as many cores work as torch's own product
would use, and none waits for another before its share is done.

Products are in bfloat16 where the processor has instructions for it; where it has none, its library converts within
every product, which is slower than float32. There blocks hold the same weights, rounded to bfloat16, as float32.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor

from submission.runtime.products.processor import product_dtype

BLOCK_BYTES = 1 << 20
"""Of a decoded block: half of what a core's second cache holds, or all of a small one."""

KERNEL_ROWS = {4: {torch.float32: 20, torch.bfloat16: 12}, 8: {torch.float32: 40, torch.bfloat16: 12}}
"""Bits of a code, dtype of products -> rows of activations up to which torch's kernel for such codes is faster, which
unpacks them again for every four rows. Measured in float32 (docs/log.md), derived in bfloat16: of processors with
instructions for it those with AVX-512 have a kernel of ours (`dot_kernels.py`), and no other was at hand."""

_OWN = threading.local()


def kernel_rows(bits: int) -> int:
    """Return up to how many rows of activations torch's kernel for 4- or 8-bit codes is faster on this processor."""
    return KERNEL_ROWS[bits][product_dtype()]


def scratch(shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Return a thread's own memory for one block; its numbers are whatever they were."""
    count = shape[0] * shape[1]
    memory: Tensor | None = getattr(_OWN, "memory", None)
    if memory is None or memory.dtype != dtype or memory.numel() < count:
        memory = _OWN.memory = torch.empty(count, dtype=dtype)
    return memory[:count].view(shape)


def rows_of_a_block(columns: int, multiple: int = 1) -> int:
    """Return how many rows of a weight a block has: whole tiles of so many, at least one."""
    row_bytes = columns * product_dtype().itemsize
    return multiple * max(1, BLOCK_BYTES // (row_bytes * multiple))


def block_products(inputs: Tensor, blocks: Sequence[slice], decode: Callable[[slice], Tensor]) -> Tensor:
    """Return [n, rows] in `product_dtype`: inputs [n, columns] times the transpose of a weight [rows, columns].

    blocks: all of the weight's rows, in order. decode: some rows -> these, in `product_dtype`; called in several
    threads at once, and what it returned in a thread before is not used any more.
    """
    inputs = inputs.to(product_dtype())

    def share(part: Sequence[slice]) -> list[Tensor]:
        with torch.no_grad():
            return [F.linear(inputs, decode(rows)) for rows in part]

    threads = min(torch.get_num_threads(), len(blocks))
    if threads == 1:
        return torch.cat(share(blocks), dim=1)
    ends = [len(blocks) * i // threads for i in range(threads + 1)]
    parts = [blocks[begin:end] for begin, end in zip(ends[:-1], ends[1:], strict=True)]
    products = _pool(torch.get_num_threads(), os.getpid()).map(share, parts)
    return torch.cat([product for part in products for product in part], dim=1)


@functools.lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Return threads in each of which torch uses no others; process: theirs, which may have forked."""
    ready = threading.Barrier(threads + 1)
    pool = ThreadPoolExecutor(threads, "products", _use_one_thread)
    for _ in range(threads):
        pool.submit(ready.wait)
    ready.wait()
    torch.set_num_threads(threads)  # what threads that begin later take over is the number that was set last
    return pool


def _use_one_thread() -> None:
    torch.get_num_threads()  # a thread's first call takes the process's number over, whatever was set before
    torch.set_num_threads(1)
