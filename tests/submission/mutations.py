"""Random changes of a bundle's files and folder, each drawn from a passed `Random`."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

FOREIGN = (
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"\r\n",
    b"null",
    b"[[",
    b"{",
    b'"',
    b"1e999",
    b"\x1b[2J",
    *(
        c.encode()
        for c in ("\u200b", "\u2800", "\u00ad", "\u200d", "\ufffd", "\U000e0041", "\U000e0101", "\ufe00", "\ufdd0")
    ),
)
# What no field expects: numbers beyond any type, texts that no terminal should see, the wrong kind of thing.
VALUES: tuple[Any, ...] = (
    *(0, 1, -1, 2, 7, 1 << 31, 1 << 63, -(1 << 64), 10**400, 10**4_000, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *(
        None,
        True,
        False,
        "",
        " ",
        "\x00",
        "\ud800",
        "\x1b[31m",
        "\u202e",
        "../../etc/passwd",
        "/dev/zero",
        "a" * 100_000,
    ),
    *(
        "https://example.org/x",
        "{team}",
        "%s%n",
        "\n\n",
        "1e9",
        "Infinity",
        "ｅｎ",
        [],
        {},
        [[]],
        {"": {}},
        [None] * 1_000,
    ),
    [[[[[[[[[[]]]]]]]]]],
    {"__class__": {"auto_map": "x"}},
)
NAMES = (
    "a\nb",
    "\x1b[2J.json",
    ".hidden",
    "-rf",
    "é.json",
    "e\u0301.json",
    "CON",
    "a:b",
    "a\\b",
    "x" * 250,
    "model.pt",
    "%",
)


# --- mutations of bytes and of values ---


def mutated(data: bytes, chance: Random) -> bytes:
    """Return bytes with a few changes: flipped, removed, repeated or foreign ones."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        # Where the structure is more often than in the middle of the weights.
        place = chance.randrange(min(len(changed), chance.choice((64, 4_096, len(changed) + 1))) + 1)
        kind = chance.randrange(6)
        if kind == 0 and place < len(changed):
            changed[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del changed[place : place + chance.choice((1, 2, 64, len(changed)))]
        elif kind == 2:
            changed[place:place] = changed[place : place + chance.choice((1, 16, 256))] * chance.choice((1, 2, 50))
        elif kind == 3:
            changed[place:place] = chance.choice(FOREIGN) * chance.choice((1, 1, 1_000))
        elif kind == 4 and place < len(changed):
            changed[place] = chance.randrange(256)
        elif kind == 5:
            changed[place:place] = chance.randbytes(chance.choice((1, 8, 1_000)))
    return bytes(changed)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return (container, key or index) of everything in a JSON value."""
    found, waiting = [], [value]
    while waiting:
        item = waiting.pop()
        keys = item.keys() if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ()
        for key in keys:
            found.append((item, key))
            waiting.append(item[key])
    return found


def mutated_json(text: bytes, chance: Random) -> bytes:
    """Return JSON with a few other values, lost, renamed or repeated keys; what is no JSON is mutated as bytes."""
    try:
        value = json.loads(text)
        for _ in range(chance.choice((1, 1, 2, 4))):
            mutate_value(value, chance)
        spelled = json.dumps(value)
    except (ValueError, RecursionError):
        return mutated(text, chance)
    if chance.random() < 0.1 and spelled.startswith("{") and len(spelled) > 2:
        key = json.dumps(chance.choice(sorted(value)))
        spelled = f"{spelled[:-1]}, {key}: {json.dumps(chance.choice(VALUES))}}}"
    return spelled.encode()


def mutate_value(value: Any, chance: Random) -> None:
    """Change, remove, rename or exchange something in a JSON value."""
    if not (everywhere := places(value)):
        return
    container, key = chance.choice(everywhere)
    kind = chance.randrange(8)
    if kind == 0:
        del container[key]
    elif kind == 1 and isinstance(container, dict):
        container[chance.choice(("", "x", "\x00", "auto_map", str(key) * 50, "../x"))] = container.pop(key)
    elif kind == 2:
        other, there = chance.choice(everywhere)
        with suppress(LookupError, RecursionError):
            container[key], other[there] = other[there], container[key]
    elif kind == 3 and isinstance(container[key], (int, float)):
        container[key] = chance.choice(
            (-container[key], container[key] + 1, container[key] * 1_000_003, str(container[key]))
        )
    else:
        container[key] = copy.deepcopy(chance.choice(VALUES))  # so that no case changes what the next one gets


def mutated_header(data: bytes, chance: Random) -> bytes:
    """Return a safetensors file with another header, or another length of it."""
    length = int.from_bytes(data[:8], "little")
    header = mutated_json(data[8 : 8 + length], chance)
    said = chance.choice((len(header), len(header), len(header), length, 0, 1 << 20, 1 << 63, (1 << 64) - 1))
    return said.to_bytes(8, "little") + header + data[8 + length :]


# --- mutations of the folder ---


def change_content(bundle: Path, chance: Random) -> None:
    path = chance.choice(files(bundle))
    data = path.read_bytes() if path.stat().st_size < MOST_READ else b""
    if path.suffix == ".safetensors" and chance.random() < 0.7:
        data = mutated_header(data, chance)
    elif path.suffix == ".json" and chance.random() < 0.7:
        data = mutated_json(data, chance)
    else:
        data = mutated(data, chance)
    path.write_bytes(data)


def swap_files(bundle: Path, chance: Random) -> None:
    one, other = chance.choice(files(bundle)), chance.choice(files(bundle))
    aside = bundle / "swapped"  # moved and not read: a change before may have stretched a file to terabytes
    if one != other:
        one.rename(aside)
        other.rename(one)
        aside.rename(other)


def rename(bundle: Path, chance: Random) -> None:
    path = chance.choice([p for p in bundle.rglob("*") if not p.is_symlink()])
    name = chance.choice((*NAMES, path.name.swapcase(), f"{path.name}.bin", chance.choice(files(bundle)).name))
    with suppress(OSError):  # a folder that is not empty is in the place
        path.rename(path.with_name(name))


def remove(bundle: Path, chance: Random) -> None:
    chance.choice(files(bundle)).unlink()


def add(bundle: Path, chance: Random) -> None:
    folder = chance.choice([p for p in (bundle, *bundle.rglob("*")) if p.is_dir() and not p.is_symlink()])
    with suppress(OSError):
        (folder / chance.choice((*NAMES, "x.json", "y.safetensors", "z.txt"))).write_bytes(
            chance.choice((b"", b"{}", b"\x80\x04.", b"#!/bin/sh", chance.randbytes(100)))
        )


def link(bundle: Path, chance: Random) -> None:
    path = chance.choice(files(bundle))
    target = chance.choice(("/etc/passwd", "/dev/zero", "/proc/self/mem", ".", "..", path.name, "nowhere"))
    path.unlink()
    path.symlink_to(target)


def link_folder(bundle: Path, chance: Random) -> None:
    folders = [p for p in bundle.iterdir() if p.is_dir() and not p.is_symlink()]
    if folders:
        folder = chance.choice(folders)
        target = folder.with_name("elsewhere")
        with suppress(OSError):
            folder.rename(target)
            folder.symlink_to(chance.choice(("elsewhere", "/etc", "/dev/fd", ".", "..")))


def link_hard(bundle: Path, chance: Random) -> None:
    with suppress(OSError):
        os.link(chance.choice(files(bundle)), bundle / chance.choice(("model/x.json", "x.json", "en-de/x.txt")))


def special(bundle: Path, chance: Random) -> None:
    path = chance.choice(files(bundle))
    path.unlink()
    chance.choice((os.mkfifo, os.mkdir))(path)


def change_mode(bundle: Path, chance: Random) -> None:
    chance.choice(files(bundle)).chmod(chance.choice((0o4755, 0o2644, 0o1777, 0o777, 0o444)))


def add_folder(bundle: Path, chance: Random) -> None:
    with suppress(OSError):
        (bundle / chance.choice(("model/snapshots", "en-fr", "x", ".git", "CON"))).mkdir(parents=True, exist_ok=True)


def stretch(bundle: Path, chance: Random) -> None:
    path = chance.choice(files(bundle))
    os.truncate(path, chance.choice((0, 1, path.stat().st_size // 2, path.stat().st_size + 1, 3 << 20, 1 << 40)))


FOLDER_CHANGES: tuple[Callable[[Path, Random], None], ...] = (
    *(swap_files, rename, remove, add, link, link_folder, link_hard, special, stretch, change_mode, add_folder),
)


MOST_READ = 4 << 20
"""A change may have stretched a file to terabytes of holes, which only the checker must bear."""


def files(bundle: Path) -> list[Path]:
    """Return the regular files of a bundle, sorted, without those behind links."""
    return sorted(p for p in bundle.rglob("*") if p.is_file() and not p.is_symlink()) or [_some_file(bundle)]


def _some_file(bundle: Path) -> Path:
    (bundle / "some.txt").write_bytes(b"")
    return bundle / "some.txt"


def seal(bundle: Path) -> None:
    """List what is there now in the manifest, so that checks behind the digests see the change."""
    path = bundle / "manifest.json"
    if path not in files(bundle) or path.stat().st_size >= MOST_READ:  # a pipe would be waited for
        return
    with suppress(OSError, ValueError, TypeError, AttributeError):
        manifest = json.loads(path.read_bytes())
        listed = [p for p in files(bundle) if p != path and p.stat().st_size < MOST_READ]
        manifest["files"] = {
            p.relative_to(bundle).as_posix(): {
                "bytes": p.stat().st_size,
                "sha256": hashlib.sha256(p.read_bytes()).hexdigest(),
            }
            for p in listed
        }
        path.write_text(json.dumps(manifest), encoding="utf-8")
