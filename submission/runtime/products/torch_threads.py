"""Run a compiled function on the threads that torch computes with.

Their library lets a thread that has nothing to do spin for milliseconds, so threads of another pool would share its
core with it; a call here costs microseconds. The library is reached as a compiler reaches it, through torch's own copy.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))


@functools.cache
def _team() -> Any:
    run = _library().GOMP_parallel
    run.argtypes, run.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    return run


def team_functions() -> tuple[Any, Any]:
    """Return what returns a thread's number in its team, and how many there are, for compiled functions to call.

    Raises OSError or AttributeError where torch computes with threads of another kind.
    """
    functions = (_library().omp_get_thread_num, _library().omp_get_num_threads)
    for function in functions:
        function.argtypes, function.restype = (), ctypes.c_int
    return functions


def run_in_team(function: int, arguments: int, threads: int) -> None:
    """Call a compiled function with a pointer, once in each of so many threads, and wait; others run meanwhile.

    function, arguments: addresses. A team may be smaller, so that the function reads how many threads there are.
    """
    _team()(function, arguments, threads, 0)
