from __future__ import annotations

import re
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from submission.model.codecs.entropy.contexts import fit_contexts
from submission.model.codecs.entropy.exceptions import Exceptions, pack_exceptions, unpack_exceptions
from submission.model.codecs.entropy.layout import HEADER, Grid, check_header, check_payload, checksum
from submission.model.codecs.entropy.stream import decode, encode, stream_bytes
from tests.runtime.entropy.cases import SHAPE, codes_and_stream, spread_codes

PARTS = r"^(stream|header|density|classes|index|payload|exceptions|padding):"


CODES, STREAM = codes_and_stream()
HEAD = check_header(STREAM, *SHAPE, len(STREAM))
GRID = Grid(rows=SHAPE[0], columns=SHAPE[1])


def altered(place: int, value: bytes) -> bytes:
    return STREAM[:place] + value + STREAM[place + len(value) :]


def sealed(stream: bytes) -> bytes:
    """The stream with the checksums of what it holds, as far as its parts lie where the whole stream's do."""
    data = bytearray(stream)
    for index in range(GRID.count):
        place = GRID.index_start + 4 * (GRID.count + index)
        data[place : place + 4] = zlib.crc32(data[HEAD.words(index)]).to_bytes(4, "little")
    check = checksum(bytes(data[: HEAD.payload_start]), bytes(data[HEAD.exceptions_start : HEAD.used_bytes]))
    data[HEADER.size - 4 : HEADER.size] = check.to_bytes(4, "little")
    return bytes(data)


def refused_or_decoded(stream: bytes) -> None:
    """The one rule for any bytes: an array of the shape, or a ValueError that names the part."""
    try:
        decoded = decode(stream, SHAPE)
    except ValueError as error:
        assert re.match(PARTS, str(error))
        return
    assert decoded.exact().shape == SHAPE


def test_the_checks_of_this_file_begin_from_a_whole_stream():
    assert sealed(STREAM) == STREAM
    assert np.array_equal(decode(STREAM, SHAPE).exact(), CODES)
    check_payload(STREAM, HEAD)


@given(st.integers(0, 8 * len(STREAM) - 1))
@settings(max_examples=200)
def test_a_flipped_bit_is_refused_by_the_parts_name_wherever_it_is(place):
    stream = altered(place // 8, bytes([STREAM[place // 8] ^ 1 << place % 8]))
    with pytest.raises(ValueError, match=PARTS):
        decode(stream, SHAPE)
    with pytest.raises(ValueError, match=PARTS):
        check_payload(stream, check_header(stream, *SHAPE, len(stream)))


@given(st.lists(st.integers(0, 8 * len(STREAM) - 1), min_size=1, max_size=8))
@settings(max_examples=200)
def test_bits_flipped_by_intent_are_refused_or_decode_to_some_codes(places):
    stream = bytearray(STREAM)
    for place in places:
        stream[place // 8] ^= 1 << place % 8
    refused_or_decoded(sealed(bytes(stream)))


def test_without_its_checksum_a_block_may_stand_for_other_codes_or_be_refused():
    outcomes = set()
    for place in range(HEAD.payload_start, HEAD.exceptions_start, 7):
        try:
            outcomes.add(decode(sealed(altered(place, bytes([STREAM[place] ^ 1]))), SHAPE).codes.shape)
        except ValueError as error:
            outcomes.add(str(error).split(";")[0])
    assert "payload: the block at row 0, column 0 cannot be decoded" in outcomes
    assert outcomes <= {"payload: the block at row 0, column 0 cannot be decoded", SHAPE} | {
        "exceptions: one is a code that the payload holds"
    }


@given(st.binary(min_size=1, max_size=60), st.integers(0, len(STREAM) - 60))
@settings(max_examples=200)
def test_any_bytes_over_any_part_are_refused_or_decode(junk, place):
    refused_or_decoded(sealed(altered(place, junk)))


@given(st.binary(max_size=len(STREAM) - HEAD.payload_start))
@settings(max_examples=100)
def test_any_bytes_after_a_whole_index_are_refused(junk):
    stream = STREAM[: HEAD.payload_start] + junk.ljust(len(STREAM) - HEAD.payload_start, b"\0")
    for each in (stream, sealed(stream)):
        with pytest.raises(ValueError, match=PARTS):
            decode(each, SHAPE)


@given(st.integers(0, len(STREAM) - 11))
@settings(max_examples=100)
def test_a_truncated_stream_is_refused(size):
    with pytest.raises(ValueError, match=PARTS):
        decode(STREAM[:size], SHAPE)


TRELLIS_CODES, TRELLIS_STREAM = codes_and_stream(trellis=True)
TRELLIS_HEAD = check_header(TRELLIS_STREAM, *SHAPE, len(TRELLIS_STREAM), trellis=True)


def resealed(stream: bytes) -> bytes:
    """A stream with a trellis, changed in its payload or exceptions, with the checksums of what it holds."""
    data, head = bytearray(stream), TRELLIS_HEAD
    for index in range(head.grid.count):
        place = head.grid.index_start + 4 * (head.grid.count + index)
        data[place : place + 4] = zlib.crc32(data[head.words(index)]).to_bytes(4, "little")
    check = checksum(bytes(data[: head.payload_start]), bytes(data[head.exceptions_start : head.used_bytes]))
    data[HEADER.size - 4 : HEADER.size] = check.to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize("trellis", [False, True])
def test_a_stream_of_one_form_is_never_read_as_the_other(trellis):
    _, stream = codes_and_stream(trellis=trellis)
    magic = ("b'EC01', got b'ET01'", "b'ET01', got b'EC01'")[not trellis]
    with pytest.raises(ValueError, match=f"^header: expected {magic}; its codes are stored in the other form"):
        decode(stream, SHAPE, trellis=not trellis)
    swapped = (b"EC01" if trellis else b"ET01") + stream[4:]
    with pytest.raises(ValueError, match=PARTS):
        decode(swapped, SHAPE, trellis=not trellis)


def test_a_trellis_stream_that_this_file_begins_from_is_whole():
    assert resealed(TRELLIS_STREAM) == TRELLIS_STREAM and TRELLIS_HEAD.exceptions >= 2
    assert np.array_equal(decode(TRELLIS_STREAM, SHAPE, trellis=True).exact(), TRELLIS_CODES)


@given(st.lists(st.integers(0, 8 * len(TRELLIS_STREAM) - 1), min_size=1, max_size=8), st.booleans())
@settings(max_examples=200)
def test_flipped_bits_of_a_trellis_stream_are_refused_or_where_it_is_sealed_decode_to_some_codes(places, seal):
    stream = bytearray(TRELLIS_STREAM)
    for place in set(places):
        stream[place // 8] ^= 1 << place % 8
    try:
        decoded = decode(resealed(bytes(stream)) if seal else bytes(stream), SHAPE, trellis=True)
    except ValueError as error:
        assert re.match(PARTS, str(error))
        return
    assert seal and decoded.exact().shape == SHAPE


def test_an_exception_of_another_subset_than_its_place_is_refused():
    section = TRELLIS_STREAM[TRELLIS_HEAD.exceptions_start : TRELLIS_HEAD.used_bytes]
    found = unpack_exceptions(section, TRELLIS_HEAD.exceptions, TRELLIS_CODES.size)
    for change in (1, 2, 3):
        values = found.values.copy()
        values[1] ^= change
        changed = pack_exceptions(Exceptions(positions=found.positions, values=values))
        assert len(changed) == len(section)
        start, end = TRELLIS_HEAD.exceptions_start, TRELLIS_HEAD.used_bytes
        stream = resealed(TRELLIS_STREAM[:start] + changed + TRELLIS_STREAM[end:])
        with pytest.raises(ValueError, match="exceptions: one is a code that the payload holds"):
            decode(stream, SHAPE, trellis=True)


BROKEN = {
    "another magic": (altered(0, b"EC02"), "header: expected b'EC01', got b'EC02'"),
    "another shape": (altered(4, (91).to_bytes(4, "little")), "header: expected 90 × 70 codes, got 91 × 70"),
    "no density": (altered(HEADER.size, bytes(80)), "density: all of its bins are empty"),
    "a class too high": (altered(GRID.classes_start, b"\xff"), "classes: .* is not in 0 … 127"),
    "a class without end": (altered(GRID.classes_start + 9, b"\xff" * 40), "classes: a number is cut off or too large"),
    "a block of no words": (altered(GRID.index_start, bytes(4)), "index: the block at row 0, column 0 has 0 words"),
    "a block of too many": (altered(GRID.index_start, b"\xff" * 4), "index: the block at row 0, column 0"),
    "more classes than fit": (altered(12, (600).to_bytes(4, "little")), "classes: 600 bytes, at most 551"),
    "exceptions past the end": (altered(20, b"\xff\xff\0\0"), "index: classes, payload and exceptions end at"),
    "more exceptions than codes": (altered(16, b"\xff\xff\0\0"), "exceptions: 65535 of 6300 codes"),
    "one exception less": (altered(16, (HEAD.exceptions - 1).to_bytes(4, "little")), "exceptions: .* do not hold"),
    "a checksum": (altered(24, bytes(4)), "header: the checksum of header"),
    "padding": (STREAM[:-1] + b"\1", "padding: a byte is not zero"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_header_check_names_the_part_at_fault(name):
    stream, message = BROKEN[name]
    with pytest.raises(ValueError, match=message):
        check_header(stream, *SHAPE, len(STREAM))
    with pytest.raises(ValueError, match=message):
        decode(stream, SHAPE)


def test_an_index_that_descends_is_refused():
    codes = spread_codes(4100, 3)
    contexts = fit_contexts(codes)
    stream = bytearray(encode(codes, contexts, stream_bytes(codes, contexts)).tobytes())
    stream[GRID.index_start + 4 : GRID.index_start + 8] = (100).to_bytes(4, "little")
    with pytest.raises(ValueError, match="index: the block at row 2050, column 0 has -"):
        check_header(bytes(stream), 4100, 3, len(stream))


def test_a_stream_of_another_size_than_allotted_is_refused():
    with pytest.raises(ValueError, match="stream: .* bytes where .* are allotted"):
        check_header(STREAM, *SHAPE, len(STREAM) + 1)


@pytest.mark.parametrize(
    ("section", "count"),
    [
        (b"\x80\x00\x00", 1),  # not the shortest form
        (b"\x00", 1),  # cut off
        (b"\x00\x80", 1),
        (b"\x00\xff\xff\xff\xff\x1f", 1),  # 33 bits
        (b"\x64\x02", 1),  # position 100 of 100
        (b"\x32\x02\x32\x02", 2),  # positions 50 and 101
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x02", 1),
        (b"\x01\x02\x03", 1),  # a byte left over
        (b"", 1),
    ],
)
def test_pairs_that_are_no_exceptions_of_a_weight_are_refused(section, count):
    with pytest.raises(ValueError, match="^exceptions:"):
        unpack_exceptions(section, count, 100)


@given(st.dictionaries(st.integers(0, 2**40 - 1), st.integers(-(2**31), 2**31 - 1), max_size=20))
def test_exceptions_survive_packing(values):
    places = np.array(sorted(values), np.int64)
    exceptions = Exceptions(positions=places, values=np.array([values[p] for p in places.tolist()], np.int32))
    found = unpack_exceptions(pack_exceptions(exceptions), len(values), 2**40)
    assert np.array_equal(found.positions, places) and np.array_equal(found.values, exceptions.values)


def test_an_exception_where_the_payload_has_a_code_is_refused():
    first = 128 + int(np.flatnonzero(CODES.reshape(-1)[128:200])[0])  # a code of the payload, before all exceptions
    stream = sealed(altered(HEAD.exceptions_start, bytes([0x80 | first & 0x7F, first >> 7])))
    with pytest.raises(ValueError, match="exceptions: one is a code that the payload holds"):
        decode(stream, SHAPE)
