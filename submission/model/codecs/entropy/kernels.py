"""The compiled loops of entropy coding: interleaved range-ANS, counts of codes, variable-length integers.

With a trellis (`trellis.py`) what is coded of a code v is its index v >> 1, with the table of the superset v & 1. That
bit is known from the codes above: a decoder carries a state machine for each lane, an encoder needs none.

A state has 32 bits and is at least 2 ** 16 between codes; frequencies have 12 bits, words 16. One code of frequency f
and first slot s takes the state x to `(x // f) << 12 | s + x % f`; where that would not fit, the low 16 bits of x are
written before. So at most one word is read per code, and a decoder that checks once per row that a whole row's words
are left needs no check per code. The words are written backwards, so that they are read forwards.

Every index comes from a checked class, a masked slot or a counter below a checked end: no stream reads out of bounds.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from submission.model.codecs.entropy.layout import RESTART_ROWS
from submission.model.codecs.entropy.trellis import next_state

OK = 0
WORDS = 1
"""A block needs more words than it has, or has some left."""
STATES = 2
"""A lane's last state is not the one that encoding began with."""
VALUE = 3
"""A variable-length integer is cut off, too large or longer than it has to be, or bytes are left."""
POSITION = 4
"""An exception lies outside the weight."""

EXCEPTION = 128
"""Stands for a residual that the payload does not hold."""

FIRST_STATE = np.uint32(1 << 16)
_LANES = 32
_SLOT = np.uint32((1 << 12) - 1)
_BITS = np.uint32(12)
_WORD = np.uint32(16)
_BYTE = np.uint32(255)
_FREQUENCY = np.uint32(20)
_ONE = np.uint64(1)


@njit(nogil=True, error_model="numpy")
def _residual(code, centre, superset, trellis, reach):
    """Return index - centre, or EXCEPTION where its size is beyond the reach or the code itself is beyond 127."""
    index = np.int64(code)
    residual = (index >> 1 if trellis else index) - centre
    return residual if -reach - superset <= residual <= reach and -127 <= code <= 127 else EXCEPTION


@njit(nogil=True, error_model="numpy")
def share_slots(mass, total, superset, slots, reach_slots, frequency, reach):
    """Fill the frequencies (uint16 [contexts, 256], zeros) and the reach (int32) of every context, as `tables.py` says.

    mass: int64 [contexts, 128], of sizes 0 … 127, which two codes share each, but in the superset 0 the size 0 is code
    0 alone. Twice the total is what they are compared with. Every code within the reach has a slot, and of the others
    its share of what all masses exceed a slot's by; half of their sum is added, so that a share is rounded.
    """
    contexts, sizes = mass.shape
    excess = np.empty(2 * sizes, np.int64)
    for context in range(contexts):
        last = 1
        for size in range(1, sizes):
            if mass[context, size] * slots * reach_slots >= 2 * total:
                last = size
        last = min(last, sizes - 1 - superset)
        first = -last - superset
        count = last - first + 1
        summed = np.int64(0)
        for place in range(count):
            code = first + place
            size = code if code >= 0 else -code - superset
            whole = mass[context, size] * (1 if size + superset > 0 else 2)
            excess[place] = max(whole * slots - 2 * total, 0)
            summed += excess[place]
        if summed == 0:
            excess[count // 2] = 1
            summed = np.int64(1)
        below, end = np.int64(0), np.int64(0)
        for place in range(count):
            below += excess[place]
            before, end = end, (below * (slots - count) + summed // 2) // summed
            frequency[context, 128 + first + place] = 1 + end - before
        reach[context] = last


@njit(nogil=True, error_model="numpy")
def encode_block(codes, row_classes, column_classes, centres, trellis, table, words):
    """Write the words of one block to the end of `words` and return the place of the first.

    codes: int16 or int32 [rows, columns] of the block, contiguous; less their column's centre they are written, and as
    0 (trellis: 0 or 1, as their parity is) where they are exceptions. row_classes: uint64 [rows], column_classes:
    uint64 [columns], whose sums, plus the superset, are places in the table. centres: int64 [columns]. table: uint32
    [places, 256], for residual k at k + 128 the frequency, and the first slot times 65536; beyond the reach those of
    what is written instead. words: uint16 [Block.most_words].
    """
    rows, columns = codes.shape
    lanes = min(columns, _LANES)
    states, entries = np.full(_LANES, FIRST_STATE, np.uint32), np.empty(_LANES, np.uint32)
    place = words.size
    bit = np.int64(1 if trellis else 0)
    first = ((columns - 1) // _LANES) * _LANES
    while first >= 0:
        end = min(first + _LANES, columns)
        classes, middle = column_classes[first:end], centres[first:end]
        for i in range(rows - 1, -1, -1):
            line = codes[i, first:end]
            place = _encode_row(line, row_classes[i], classes, middle, bit, table, states, entries, words, place)
        first -= _LANES
    for lane in range(lanes - 1, -1, -1):
        place -= 2
        words[place] = np.uint16(states[lane] & np.uint32(0xFFFF))
        words[place + 1] = np.uint16(states[lane] >> _WORD)
    return place


@njit(nogil=True, error_model="numpy")
def _encode_row(codes, row_class, classes, centres, bit, table, states, entries, words, place):
    """Encode the codes of one row and as many lanes, the last first; return the place of the first word.

    bit: 1 with a trellis, the width and the mask of what its state says of a code; 0 without. In three loops, since
    only the second one has an order: what its words are does not depend on what the other two compute for other lanes.
    """
    for lane in range(codes.size):
        code = np.int64(codes[lane])
        context = row_class + classes[lane] + np.uint64(code & bit)
        symbol = np.uint64((code >> bit) - centres[lane] + 128)
        # As unsigned numbers, what is below a range is above it too.
        held = symbol - _ONE < np.uint64(255) and np.uint64(code + 127) < np.uint64(255)
        entries[lane] = table[context, symbol if held else np.uint64(128) | (symbol & np.uint64(bit))]
    for lane in range(codes.size - 1, -1, -1):
        state = states[lane]
        # Without a branch: the word is written in any case, and kept where the place moves on.
        words[place - 1] = np.uint16(state & np.uint32(0xFFFF))
        above = state >= np.uint32(entries[lane] << _FREQUENCY)
        place -= np.int64(above)
        states[lane] = np.uint32(state >> _WORD) if above else state
    for lane in range(codes.size):
        state, frequency = states[lane], np.uint32(entries[lane] & np.uint32(0xFFFF))
        # Exact: a quotient that is no integer is at least 2 ** -12 below the next, more than a double rounds.
        quotient = np.uint32(np.float64(state) / np.float64(frequency))
        states[lane] = np.uint32(
            np.uint32(quotient << _BITS) + np.uint32(state - quotient * frequency) + np.uint32(entries[lane] >> _WORD)
        )
    return place


@njit(nogil=True, error_model="numpy")
def decode_block(words, row_classes, column_classes, centres, machines, table, out, row, rows, column, columns):
    """Fill one block of out with its codes; return OK or what is wrong with its words.

    words: uint16, the block's and no others. row_classes: uint64 [rows], column_classes: uint64 [columns], whose sums,
    plus the superset, are places in the table; the caller has checked that. centres: int64 [columns], added to what is
    decoded. machines: uint64 [32], the states of the trellis, overwritten; None without a trellis, for which other code
    is compiled. table: uint32 [places, 4096], for every slot residual + 128, frequency times 256, slot minus the
    residual's first slot times 2 ** 20. out: int8, of which the rectangle at row and column is filled.
    """
    lanes = min(columns, _LANES)
    states = np.empty(_LANES, np.uint32)
    end = np.uint64(words.size)
    place = np.uint64(2 * lanes)
    if place > end:
        return WORDS
    for lane in range(lanes):
        states[lane] = np.uint32(words[2 * lane]) | np.uint32(np.uint32(words[2 * lane + 1]) << _WORD)
    for first in range(0, columns, _LANES):
        width = min(_LANES, columns - first)
        classes, middle = column_classes[first : first + width], centres[first : first + width]
        for i in range(rows):
            line = out[row + i, column + first : column + first + width]
            if machines is not None and i % RESTART_ROWS == 0:
                machines[:] = 0
            if end - place >= np.uint64(width):
                place = _decode_row(words, place, states, row_classes[i], classes, middle, machines, table, line)
            else:
                place = _decode_row_checked(
                    words, place, states, row_classes[i], classes, middle, machines, table, line
                )
                if place > end:
                    return WORDS
    if place != end:
        return WORDS
    for lane in range(lanes):
        if states[lane] != FIRST_STATE:
            return STATES
    return OK


@njit(nogil=True, error_model="numpy", inline="always")
def _code(symbol, centre, machines, lane):
    """Return the code of a symbol, int8, and move the lane's state machine on."""
    index = np.int64(symbol) - 128 + centre
    if machines is None:
        return np.int8(index)
    state = machines[lane]
    machines[lane] = next_state(state, np.uint64(index))
    return np.int8(2 * index + np.int64(state & _ONE))


@njit(nogil=True, error_model="numpy", inline="always")
def _superset(machines, lane):
    """Return the superset that a lane's next code is from; 0 without a trellis."""
    return np.uint64(0) if machines is None else machines[lane] & _ONE


@njit(nogil=True, error_model="numpy", inline="always")
def _decode_row(words, place, states, row_class, classes, centres, machines, table, out):
    """Decode a row of which all words are there; return the place after them."""
    for lane in range(classes.size):
        state = states[lane]
        entry = table[row_class + classes[lane] + _superset(machines, lane), np.uint64(state & _SLOT)]
        state = np.uint32(
            np.uint32(np.uint32(entry >> np.uint32(8)) & _SLOT) * np.uint32(state >> _BITS)
            + np.uint32(entry >> _FREQUENCY)
        )
        below = state < FIRST_STATE
        word = np.uint32(words[place])
        states[lane] = np.uint32(np.uint32(state << _WORD) | word) if below else state
        place += np.uint64(below)
        out[lane] = _code(entry & _BYTE, centres[lane], machines, lane)
    return place


@njit(nogil=True, error_model="numpy")
def _decode_row_checked(words, place, states, row_class, classes, centres, machines, table, out):
    """Decode a row near the end of a block; return the place after its words, beyond the end where one is missing."""
    end = np.uint64(words.size)
    for lane in range(classes.size):
        state = states[lane]
        entry = table[row_class + classes[lane] + _superset(machines, lane), np.uint64(state & _SLOT)]
        state = np.uint32(
            np.uint32(np.uint32(entry >> np.uint32(8)) & _SLOT) * np.uint32(state >> _BITS)
            + np.uint32(entry >> _FREQUENCY)
        )
        if state < FIRST_STATE:
            if place >= end:
                return end + _ONE
            state = np.uint32(np.uint32(state << _WORD) | np.uint32(words[place]))
            place += _ONE
        states[lane] = state
        out[lane] = _code(entry & _BYTE, centres[lane], machines, lane)
    return place


@njit(nogil=True, error_model="numpy")
def add_codes(codes, column_sums):
    """Add codes, clipped to ±127, to the sums (int64) of their columns."""
    rows, columns = codes.shape
    for i in range(rows):
        for j in range(columns):
            column_sums[j] += min(max(np.int64(codes[i, j]), -127), 127)


@njit(nogil=True, error_model="numpy")
def add_sizes(codes, centres, trellis, row_sums, column_sums):
    """Add the size of code less its column's centre, at most 127, to the sums (int64) of its row and its column."""
    rows, columns = codes.shape
    for i in range(rows):
        total = np.int64(0)
        for j in range(columns):
            code = np.int64(codes[i, j])
            size = min(abs(code - 2 * centres[j]) >> 1 if trellis else abs(code - centres[j]), 127)
            total += size
            column_sums[j] += size
        row_sums[i] += total


@njit(nogil=True, error_model="numpy")
def count_codes(codes, row_classes, column_classes, centres, trellis, counts):
    """Count residuals by place: int64 [places, 256], residual k at k + 128, exceptions beyond 127 at 0."""
    rows, columns = codes.shape
    bit = np.int64(1 if trellis else 0)
    for i in range(rows):
        for j in range(columns):
            code = np.int64(codes[i, j])
            superset = np.uint64(code & bit)
            symbol = np.uint64((code >> bit) - centres[j] + 128)
            held = symbol - _ONE < np.uint64(255) - superset and np.uint64(code + 127) < np.uint64(255)
            counts[row_classes[i] + column_classes[j] + superset, symbol if held else np.uint64(0)] += 1


@njit(nogil=True, error_model="numpy")
def find_exceptions(codes, row_classes, column_classes, centres, trellis, reach, positions, values):
    """Return how many codes the payload does not hold; fill positions (int64, row-major) and values (int32) of these.

    Where there are more than places in these arrays, the first are filled in.
    """
    rows, columns = codes.shape
    found = 0
    for i in range(rows):
        for j in range(columns):
            superset = np.int64(codes[i, j]) & 1 if trellis else np.int64(0)
            most = reach[row_classes[i] + column_classes[j] + np.uint64(superset)]
            if _residual(codes[i, j], centres[j], superset, trellis, most) == EXCEPTION:
                if found < positions.size:
                    positions[found] = np.int64(i) * columns + j
                    values[found] = codes[i, j]
                found += 1
    return found


@njit(nogil=True, error_model="numpy")
def write_varints(numbers, out):
    """Write uint64 numbers as varints: 7 bits a byte, lowest first, 128 added where others follow; return bytes."""
    place = 0
    for i in range(numbers.size):
        number = numbers[i]
        while number >= np.uint64(128):
            out[place] = np.uint8((number & np.uint64(127)) | np.uint64(128))
            number >>= np.uint64(7)
            place += 1
        out[place] = np.uint8(number)
        place += 1
    return place


@njit(nogil=True, error_model="numpy")
def _read_varint(section, place, bits):
    """Return the varint at a place and the place after it, or 0 where it is cut off, too large or not the shortest."""
    number, shift = np.uint64(0), 0
    while place < section.size and shift < bits:
        byte = np.uint64(section[place])
        number |= (byte & np.uint64(127)) << np.uint64(shift)
        place += 1
        shift += 7
        if byte < np.uint64(128):
            shortest = byte > np.uint64(0) or shift == 7
            return number, place if shortest and number >> np.uint64(bits) == np.uint64(0) else 0
    return number, 0


@njit(nogil=True, error_model="numpy")
def read_exceptions(section, codes, positions, values):
    """Fill positions (int64) and values (int32) from pairs of varints; return OK or what is wrong with them.

    section: uint8. codes: how many the weight has, less than 2 ** 40.
    """
    place, position = 0, np.int64(-1)
    for i in range(positions.size):
        gap, place = _read_varint(section, place, 40)
        if place == 0:
            return VALUE
        position += np.int64(gap) + 1
        if position >= codes:
            return POSITION
        zigzag, place = _read_varint(section, place, 32)
        if place == 0:
            return VALUE
        positions[i] = position
        half = np.int64(zigzag >> _ONE)
        values[i] = np.int32(-half - 1 if zigzag & _ONE else half)
    return OK if place == section.size else VALUE
