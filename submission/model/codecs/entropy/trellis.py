"""The trellis of entropy-coded trellis-coded quantization (ECTCQ), as a state machine on integer codes.

Trellis-coded quantization (Marcellin and Fischer, "Trellis coded quantization of memoryless and Gauss-Markov sources",
IEEE Trans. Comm. 38, 1990) takes codes v from the integers in four subsets D0 … D3, v modulo 4. A state of the machine
admits two of them, a superset: A0 = D0 ∪ D2, the even numbers, in even states; A1 = D1 ∪ D3, the odd ones, in odd
states. Which of the two a code is from decides the next state, so of all sequences of integers those that follow the
trellis (Ungerboeck's with 8 states, parity check polynomials 13 and 4 in octal) are as far from each other as coarser
steps would make them, and lie about 1.1 dB nearer to what they stand for at the same rate. Entropy-coded with a table
for each superset (Fischer and Wang, "Entropy-constrained trellis-coded quantization", IEEE Trans. Inform. Theory 38,
1992; Marcellin, "On entropy-constrained trellis coded quantization", IEEE Trans. Comm. 42, 1994) a code costs its index
in the superset, k = v >> 1: the machine's state says the lowest bit of v, and the lowest bit of k which subset it is.

Here a path is one column of a weight, downwards; error feedback goes from column to column, so a whole path is chosen
before its errors are fed back. It begins in the state 0 at the rows that `layout.Grid.restarts` gives.
"""

from __future__ import annotations

import numpy as np
from numba import njit

STATES = 8
_ONE = np.uint64(1)
_TWO = np.uint64(2)


@njit(nogil=True, error_model="numpy", inline="always")
def next_state(state, index):
    """Return the state after a code of this index k in the superset of a state; both and the result uint64."""
    superset = state & _ONE
    return (state >> _ONE) ^ (superset | superset << _TWO) ^ ((index & _ONE) << _ONE)


@njit(nogil=True, error_model="numpy")
def first_stray(codes, restarts):
    """Return the first row of codes [rows, columns] in which one is not in the superset of its state, or -1.

    restarts: int64, ascending, the first of them 0: rows in which the state is 0.
    """
    rows, columns = codes.shape
    states = np.zeros(columns, np.uint64)
    following = 0
    for i in range(rows):
        if following < restarts.size and restarts[following] == i:
            states[:] = 0
            following += 1
        strays = np.uint64(0)
        for j in range(columns):  # without a way out, so that it becomes vector instructions
            code = np.uint64(np.int64(codes[i, j]))
            strays |= (code ^ states[j]) & _ONE
            states[j] = next_state(states[j], code >> _ONE)
        if strays:
            return i
    return -1
