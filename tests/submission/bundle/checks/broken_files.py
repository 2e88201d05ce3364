"""Broken bundles by the modes, names, folders and bytes of their files, in the form of CASES."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from tests.submission.bundle.checks.breaking import (
    CONFIG,
    WEIGHTS,
    Case,
    case,
    edit,
    header,
    line,
    packed_weights,
    write,
)

SEGMENTER_WEIGHTS = "segmenter/model.safetensors"
INDEX = "model/model.safetensors.index.json"


def indexed(name: str, **changes: object) -> Callable[[Path], None]:
    """Let the weights be a file of another name, which an index names."""

    def apply(bundle: Path) -> None:
        path = bundle / "model" / name
        (bundle / WEIGHTS).rename(path)
        table = header_of(path)
        table.pop("__metadata__")
        size = sum(end - begin for begin, end in (entry["data_offsets"] for entry in table.values()))
        index = {"metadata": {"total_size": size}, "weight_map": dict.fromkeys(table, name)} | changes
        (bundle / INDEX).write_text(json.dumps(index), encoding="utf-8")

    return apply


def header_of(path: Path) -> dict:
    data = path.read_bytes()
    table: dict = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return table


def numbers(path: str, dtype: str, number: bytes) -> Callable[[Path], None]:
    """Let the last number of the first tensor of a dtype be another one."""

    def apply(bundle: Path) -> None:
        data = bytearray((bundle / path).read_bytes())
        length = int.from_bytes(data[:8], "little")
        tensors = {k: e for k, e in json.loads(data[8 : 8 + length]).items() if k != "__metadata__"}
        end = next(e["data_offsets"][1] for e in tensors.values() if e["dtype"] == dtype)
        data[8 + length + end - len(number) : 8 + length + end] = number
        (bundle / path).write_bytes(data)

    return apply


def listening(bundle: Path) -> None:
    """Put a socket into the model's folder; its own name is short enough for one."""
    here = os.getcwd()
    os.chdir(bundle / "model")
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("merges.txt")
    finally:
        os.chdir(here)


def renamed_codec(config: dict) -> None:
    """Let the name of a codec say other than the codec."""
    section = config["quantization_config"]
    section["codecs"]["affine4g128"] = section["codecs"].pop("affine3g128")
    for weight in packed_weights(config):
        section["weights"][weight] = "affine4g128"


def said(text: str) -> Callable[[Path], None]:
    return line(f"Ein{text}Satz.")


NAN, INFINITE = struct.pack("<e", float("nan")), struct.pack("<e", float("-inf"))
FILES: tuple[Case, ...] = (
    case("FILE02", "socket", listening),
    case("FILE05", "a device of Windows", indexed("CON.safetensors"), "SIZE01"),
    case("FILE05", "like an option", indexed("-rf.safetensors"), "SIZE01"),
    case("FILE05", "a blank at its end", write("model/config.json ", "{}"), "FILE08"),
    case("FILE05", "a dot at its end", write("model/config.json.", "{}"), "FILE08"),
    case("FILE05", "255 bytes", write(f"model/{'x' * 243}.safetensors", b""), "WEI01", "WEI04"),
    case("FILE08", "empty folder", lambda b: (b / "model/snapshots").mkdir()),
    case("FILE08", "empty pair", lambda b: (b / "en-fr").mkdir()),
    case("FILE12", "set-user-ID", lambda b: (b / CONFIG).chmod(0o4755), sealed=False),
    case("FILE12", "set-group-ID", lambda b: (b / CONFIG).chmod(0o2755), sealed=False),
    case("FILE13", "licence of random bytes", write("model/LICENSE", bytes(range(128, 256)))),
    case("FILE13", "notice that clears the screen", write("model/NOTICE", "\x1b[2J")),
    case("FILE13", "licence that turns the line", write("model/LICENSE", "a\u202eb")),
    case("FILE04", "another model called licence", write("model/LICENSE", b"GGUF\x03\x00"), "FILE13"),
    case("WEI01", "no metadata", header(lambda table: table.pop("__metadata__"))),
    case("WEI01", "metadata of another library", header(lambda table: table.update(__metadata__={"format": "tf"}))),
    case("WEI01", "text in the metadata", header(lambda table: table["__metadata__"].update(note="x" * 100))),
    case(
        "WEI04", "another size in the index", indexed("model-1-of-1.safetensors", metadata={"total_size": 1}), "SIZE01"
    ),
    case("WEI04", "no size in the index", indexed("model-1-of-1.safetensors", metadata=None), "SIZE01"),
    case("WEI04", "unknown key of the index", indexed("model-1-of-1.safetensors", auto_map={}), "SIZE01"),
    case("WEI08", "not a number", numbers(WEIGHTS, "BF16", b"\xc0\x7f")),
    case("WEI08", "infinite", numbers(WEIGHTS, "BF16", b"\x80\xff")),
    case("WEI08", "scale that is not a number", numbers(WEIGHTS, "F16", NAN)),
    case("WEI08", "infinite scale", numbers(WEIGHTS, "F16", INFINITE)),
    case("WEI08", "classifier of no numbers", numbers(SEGMENTER_WEIGHTS, "F16", NAN)),
    case("CFG01", "codec under the name of another", edit(CONFIG, renamed_codec)),
    case(
        "CFG01",
        "true for the version of the packing",
        edit(CONFIG, lambda c: c["quantization_config"].update(version=True)),
    ),
    case("TXT07", "variation selectors", said("\U000e0101\U000e0120")),
    case("TXT07", "a variant of a letter", said("\ufe00")),
    case("TXT07", "noncharacter", said("\ufdd0")),
    case("TXT07", "noncharacter at the end of a plane", said("\U0001ffff")),
    case("TXT07", "a control of music", said("\U0001d173")),
    case("TXT07", "a control of shorthand", said("\U0001bca0")),
)
