from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submission.model.codecs.entropy.classes import ListReader, least_bytes, list_bits, pack_lists

numbers = st.lists(st.integers(0, 127), min_size=1, max_size=200)


@given(st.lists(numbers, min_size=1, max_size=4))
def test_lists_survive_packing(lists):
    section = pack_lists(lists)
    reader = ListReader(section)
    assert [list(reader.read(len(each))) for each in lists] == lists
    reader.finish()
    assert least_bytes(sum(map(len, lists)), len(lists)) <= len(section)


def test_packed_numbers_are_rice_codes_around_their_median():
    # centre 66 in 7 bits, width 0 in 3; zigzag of 66, 65, 68 is 0, 1, 4 in so many ones and a zero
    assert list_bits([66, 65, 68]) == "1000010 000 0 10 11110".replace(" ", "")
    # width 2; zigzag of 74 and 58 is 16 and 15, that is four ones and 00, three ones and 11
    assert list_bits([66, 74, 58, 66, 66]) == "1000010 010 000 1111000 111011 000 000".replace(" ", "")
    assert pack_lists([[66, 65, 68]]) == int("100001000001011110" + "000000", 2).to_bytes(3, "big")


@given(st.binary(max_size=40), st.integers(1, 80))
def test_any_bytes_are_numbers_in_range_or_refused(section, count):
    reader = ListReader(section)
    try:
        found = reader.read(count)
        reader.finish()
    except ValueError as error:
        assert str(error).startswith("classes: ")
    else:
        assert len(found) == count and max(found) <= 127


@pytest.mark.parametrize("section", [b"", b"\x80", b"\x84\x0f\xff", b"\x84\x00\x00\x00", b"\x84\x00\x01"])
def test_bits_that_are_no_list_of_two_are_refused(section):
    reader = ListReader(section)
    with pytest.raises(ValueError, match="^classes: "):
        reader.read(2)
        reader.finish()
