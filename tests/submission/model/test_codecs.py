from __future__ import annotations

import pytest

from submission.errors import UserError
from submission.model.codecs import Affine, Codec, parse_codec
from submission.model.codecs.affine import CODE_BITS


def affine(bits: int, group_size: int) -> Codec:
    return Affine(bits=bits, group_size=group_size)


def test_a_codec_is_named_after_its_choices():
    assert affine(4, 128).name == "affine4g128"


def test_a_codec_survives_its_json_object():
    for bits in CODE_BITS:
        assert parse_codec(affine(bits, 64).to_dict(), "here") == affine(bits, 64)


def test_three_bit_codes_take_exactly_three_bits():
    assert affine(3, 128).parts((11008, 4096)) == {
        "codes": ("U8", (11008, 1536)),
        "scale": ("F16", (11008, 32)),
        "zero": ("F16", (11008, 32)),
    }


def test_ragged_rows_are_rounded_up_to_whole_bytes_and_groups():
    parts = affine(3, 64).parts((5, 67))
    assert parts["codes"][1] == (5, 26)
    assert parts["scale"][1] == parts["zero"][1] == (5, 2)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"kind": "affine", "bits": 4}, "group_size: missing"),
        ({"kind": "affine", "bits": 4, "group_size": 64, "axis": 1}, "axis: unknown key"),
        ({"kind": "affine", "bits": 4, "group_size": 64, "meta_bits": 4}, "meta_bits: expected"),
        ({"bits": 4, "group_size": 64}, "expected a codec"),
        ({"kind": "affine", "bits": 7, "group_size": 64}, "7 is no width of a code"),
        ({"kind": "affine", "bits": True, "group_size": 64}, "expected a whole number, got bool True"),
        ({"kind": "affine", "bits": 4, "group_size": 0}, "0 is not positive"),
        ({"kind": "rice", "bits": 4, "group_size": 64}, "unknown codec 'rice'"),
        ("affine4g64", "expected a codec, got 'affine4g64'"),
    ],
)
def test_a_malformed_codec_is_refused_with_its_place(value, said):
    with pytest.raises(UserError, match="^config.json: codecs.x") as caught:
        parse_codec(value, "config.json: codecs.x")
    assert said in str(caught.value)
