from __future__ import annotations

from pathlib import Path

import pytest

from submission.errors import UserError
from submission.model.codecs.dtypes import TORCH_NAMES, torch_dtype
from submission.model.safetensors_header import (
    DTYPE_BYTES,
    BadHeader,
    file_bytes,
    header_bytes,
    lay_out,
    parse_header,
    read_header,
)

TENSORS = {
    "b.codes": ("U8", (3, 5)),
    "a.weight": ("BF16", (2, 4)),
    "b.scale": ("F16", (3, 1)),
    "c.empty": ("F32", (0, 7)),
}


def write(path: Path, tensors=TENSORS) -> Path:
    head = header_bytes(tensors)
    path.write_bytes(head + bytes(file_bytes(tensors) - len(head)))
    return path


def broken(path: Path, old: bytes, new: bytes) -> Path:
    """Write the file with one thing wrong in its header (old and new are equally long)."""
    assert len(old) == len(new)
    data = write(path).read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    return path


def test_a_header_is_read_back_as_it_was_laid_out(tmp_path):
    header = read_header(write(tmp_path / "x.safetensors"))
    assert header.tensors == lay_out(TENSORS)
    assert header.metadata == {"format": "pt"}
    assert header.data_offset == len(header_bytes(TENSORS)) and header.data_offset % 8 == 0


def test_wide_dtypes_come_first_so_that_every_tensor_is_aligned():
    for name, info in lay_out(TENSORS).items():
        assert info.begin % DTYPE_BYTES[info.dtype] == 0, name


def test_the_header_equals_the_librarys_for_every_dtype(tmp_path):
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    assert set(TORCH_NAMES) == set(DTYPE_BYTES)
    assert all(torch_dtype(name).itemsize == size for name, size in DTYPE_BYTES.items())
    names = [f"{stem}.{dtype}" for stem in ("b", "a10", "a9", "ä") for dtype in TORCH_NAMES]
    path = tmp_path / "library.safetensors"
    save_file(
        {name: torch.zeros((2, 3), dtype=torch_dtype(name.rsplit(".")[-1])) for name in names},
        path,
        metadata={"format": "pt"},
    )
    head = header_bytes({name: (name.rsplit(".")[-1], (2, 3)) for name in names})
    assert path.read_bytes().startswith(head)
    assert path.stat().st_size == file_bytes({name: (name.rsplit(".")[-1], (2, 3)) for name in names})


def test_a_file_cut_short_is_refused(tmp_path):
    path = write(tmp_path / "x.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="truncated"):
        read_header(path)


def test_bytes_after_the_last_tensor_are_refused(tmp_path):
    path = write(tmp_path / "x.safetensors")
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UserError, match="its tensors take 37 bytes, the file holds 38"):
        read_header(path)


def test_an_unknown_dtype_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="a.weight: unknown dtype 'BF61'"):
        read_header(broken(tmp_path / "x.safetensors", b"BF16", b"BF61"))


def test_a_shape_that_contradicts_its_bytes_is_refused(tmp_path):
    with pytest.raises(UserError, match="b.codes: .*takes 18 bytes, its offsets give it 15"):
        read_header(broken(tmp_path / "x.safetensors", b"[3,5]", b"[3,6]"))


def test_overlapping_tensors_are_refused(tmp_path):
    with pytest.raises(UserError, match="b.scale: overlaps the tensor before it: begins at byte 14, expected 16"):
        read_header(broken(tmp_path / "x.safetensors", b"[16,22]", b"[14,20]"))


@pytest.mark.parametrize("data", [b"", b"12345678", (10**12).to_bytes(8, "little"), (2).to_bytes(8, "little") + b"[]"])
def test_what_is_no_safetensors_file_is_refused(tmp_path, data):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(UserError, match="has no safetensors header"):
        read_header(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_header(tmp_path / "none.safetensors")


ENTRY = '{"dtype":"U8","shape":[2],"data_offsets":[0,2]}'


@pytest.mark.parametrize(
    ("header", "problem", "tensor", "said"),
    [
        (f'{{"a":{ENTRY},"a":{ENTRY}}}', "repeated", None, "gives the key 'a' more than once"),
        ('{"a":' * 5000, "unreadable", None, "header: is"),
        ('{"a":[]}', "unreadable", "a", "has not exactly dtype, shape and data_offsets"),
        ('{"a":{"dtype":[[]],"shape":[2],"data_offsets":[0,2]}}', "unreadable", "a", "unknown dtype list"),
        ('{"a":{"dtype":"U8","shape":[true],"data_offsets":[0,1]}}', "unreadable", "a", "that are no sizes"),
        ('{"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}}', "unreadable", "a", "no sizes"),
        ('{"a":{"dtype":"U8","shape":[281474976710657],"data_offsets":[0,1]}}', "unreadable", "a", "no sizes"),
        ('{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,2]}}', "layout", "a", "takes 3 bytes"),
        ('{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', "layout", "a", "leaves a gap before it"),
        (f'{{"a":{ENTRY},"__metadata__":{{"format":1}}}}', "unreadable", None, "not a table of texts"),
        (' {"a":1}', "unreadable", None, "does not begin with"),
        ('{"a":\ud800}', "unreadable", None, "is not JSON in UTF-8"),
    ],
)
def test_the_parser_says_which_kind_of_wrong_a_header_is(header, problem, tensor, said):
    text = header.encode("utf-8", "surrogatepass")
    data = len(text).to_bytes(8, "little") + text
    with pytest.raises(BadHeader) as caught:
        parse_header(data, len(data) + 2)
    assert (caught.value.problem, caught.value.tensor) == (problem, tensor) and said in str(caught.value)


def test_a_header_beyond_the_limit_is_refused_unread():
    with pytest.raises(BadHeader, match="here it can have 10 at most"):
        parse_header((1 << 40).to_bytes(8, "little"), 1 << 50, limit=10)
