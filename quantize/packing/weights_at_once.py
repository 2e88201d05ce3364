"""Work on several weights at once, a thread each, as many as fit in memory; on a large weight alone, with all threads.

A weight's passes are partly serial (reading, contexts, writing), so threads that share one weight wait for each other;
threads that have a weight each do not. Solvers give the same bytes on any number of threads, so this changes none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Part = TypeVar("Part")
Found = TypeVar("Found")

MOST_ELEMENTS = 1 << 27
"""Weights, as numbers, that are worked on at once: each takes up to 24 bytes while it is solved. One with more is
worked on alone."""


def each_weight(
    work: Callable[[Part], Found],
    parts: Iterable[Part],
    elements: Callable[[Part], int],
    done: Callable[[Part], None],
) -> list[Found]:
    """Return what work makes of parts, in their order, on as many threads as torch would use.

    elements: of a part, the numbers of its largest weight. A part has one thread, and torch within it; one of more than
    MOST_ELEMENTS has all threads, and nothing runs beside it. Parts begin in their order. done is called after each,
    by the calling thread. After an error no other part begins, those that run end, and the first error is raised.
    """
    threads = torch.get_num_threads()
    futures: list[Future[Found]] = []
    running: dict[Future[Found], Part] = {}

    def finish(most: int, added: int) -> None:
        """Wait until no more than so many parts run, and so many elements more fit beside them."""
        while len(running) > most or (running and sum(map(elements, running.values())) + added > MOST_ELEMENTS):
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                part = running.pop(future)
                future.result()
                done(part)

    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for part in parts:
                finish(threads - 1, elements(part))
                if threads == 1 or elements(part) > MOST_ELEMENTS:
                    futures.append(_finished(work(part)))
                    done(part)
                else:
                    futures.append(future := pool.submit(work, part))
                    running[future] = part
            finish(0, 0)
    finally:
        torch.set_num_threads(threads)  # a thread that begins later takes over what was set last, by any thread
    return [future.result() for future in futures]


def _finished(found: Found) -> Future[Found]:
    future: Future[Found] = Future()
    future.set_result(found)
    return future
