"""Broken bundles whose files contradict each other, or say what a bundle has nowhere to say, in the form of CASES."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.submission.bundle.checks.breaking import (
    Case,
    case,
    edit,
    figure,
    measured_elsewhere,
    record_of,
    rules_of,
    scored,
)

ACL_SEGMENTS = "segments/ACL.yaml"


def manifest(change: Callable[[dict], object]) -> Callable[[Path], None]:
    return edit("manifest.json", change)


def recipe(change: Callable[[dict], object]) -> Callable[[Path], None]:
    return edit("recipe.json", change)


def scores(**changes: Any) -> Callable[[Path], None]:
    """Let scores.json hold another value under a key of its own."""
    return edit("scores.json", lambda s: s.update(changes))


def figure_twice(s: dict) -> None:
    """Let a figure stand twice, with two values."""
    s["scores"].append(s["scores"][0] | {"value": 99.0})


def referenced(bundle: Path) -> None:
    """Let a figure and its test set give two numbers of reference lines."""
    figure(references=7)(bundle)
    edit("scores.json", lambda s: record_of(s).update(references=40))(bundle)


def of_many_segments(bundle: Path) -> None:
    """Let the measured speed be of more segments than the test set has."""
    measured_elsewhere(bundle)
    edit("efficiency.json", lambda e: e.update(segments=4_000))(bundle)


def lines_of(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    """Change the lines of a list of segments."""

    def apply(bundle: Path) -> None:
        path = bundle / ACL_SEGMENTS
        path.write_text("".join(change(path.read_text(encoding="utf-8").splitlines(True))), encoding="utf-8")

    return apply


def tagged(tag: bytes, instead: bytes) -> Callable[[Path], None]:
    """Spell a part of scores.json otherwise."""

    def apply(bundle: Path) -> None:
        data = (bundle / "scores.json").read_bytes()
        assert tag in data
        (bundle / "scores.json").write_bytes(data.replace(tag, instead, 1))

    return apply


CLAIMS: tuple[Case, ...] = (
    case("SCO01", "unknown key", scores(ranking=1)),
    case("SCO01", "unknown key of a figure", figure(note="the best of all")),
    case("SCO01", "unknown key of a test set", scored(ranking=1)),
    case("SCO01", "signature with markup", figure(signature="<img src=x>")),
    case("SCO01", "signature that clears the screen", figure(signature="\x1b[2J")),
    case("SCO01", "signature that is a list", figure(signature=[1])),
    case("SCO01", "digest that is none", figure(data_sha256="abc")),
    case("SCO01", "half a character", figure(signature="\ud800")),
    case("SCO01", "test set above the folder", figure(testset="../../x")),
    case("SCO01", "figure of no pair", figure(pair="en-fr")),
    case(
        "SCO01",
        "test set of no pair",
        edit("scores.json", lambda s: s["testsets"].append(record_of(s) | {"pair": "x"})),
    ),
    case("SCO01", "figure of a test set that is not listed", figure(testset="ACL6060", segments=100)),
    case("SCO01", "two numbers of references", referenced),
    case("SCO01", "figure of COMET that is not computed", scores(comet={"state": "computed", "reason": ""})),
    case("SCO01", "COMET in another form", scores(comet=["computed"])),
    case(
        "SCO01",
        "a thousand figures and more",
        edit("scores.json", lambda s: s.update(scores=s["scores"] * 600)),
        "SCO03",
    ),
    case("SCO01", "more loops than segments", scored(flags={"blank": 0, "loop": 4})),
    case("SCO01", "loops in words", scored(flags={"blank": 0, "loop": "many"})),
    case("SCO01", "byte order mark", tagged(b"{", b"\xef\xbb\xbf{")),
    case("SCO01", "not a number", tagged(b"31.5", b"NaN")),
    case("SCO01", "key given twice", tagged(b'"scores":', b'"scores": [], "scores":')),
    case("SCO03", "figure given twice", edit("scores.json", figure_twice)),
    case("SCO04", "value below half an interval", figure(low=40)),
    case("SCO04", "value above half an interval", figure(high=20)),
    case("MAN01", "unknown key", manifest(lambda m: m.update(note="x")), sealed=False),
    case("MAN01", "true for the version", manifest(lambda m: m.update(version=True)), sealed=False),
    case("MAN01", "key of no stage", manifest(lambda m: m["stages"].update(quantize="rm -rf")), sealed=False),
    case(
        "MAN01",
        "stage that clears the screen",
        manifest(lambda m: m["stages"].update({"\x1b": "a" * 64})),
        sealed=False,
    ),
    case("MAN01", "no packing", manifest(lambda m: m.update(stages={"merge": "a" * 64})), sealed=False),
    case("MAN07", "no base model", manifest(lambda m: m.update(inputs={"shas": "a" * 64})), sealed=False),
    case("MAN01", "input of no digest", manifest(lambda m: m["inputs"].update(base="none")), sealed=False),
    case(
        "MAN01",
        "version of a million digits",
        manifest(lambda m: m["provenance"].update(torch="9" * 10**6)),
        sealed=False,
    ),
    case(
        "MAN01", "version that clears the screen", manifest(lambda m: m["provenance"].update(x="\x1b[2J")), sealed=False
    ),
    case(
        "MAN07",
        "parameters with a fraction",
        manifest(lambda m: m["model"].update(parameters=float(m["model"]["parameters"]))),
        sealed=False,
    ),
    case("CAM01", "1 for true", edit("campaign.json", lambda c: c.update(made_here=1))),
    case("CAM01", "window with a fraction", edit("campaign.json", lambda c: c["model"].update(window_seconds=5.0))),
    case("REC01", "name above the folder", recipe(lambda r: r.update(name="../x"))),
    case("REC01", "no name", recipe(lambda r: r.update(name=""))),
    case("REC01", "description that clears the screen", recipe(lambda r: r.update(description="\x1b[2J"))),
    case("REC01", "description of a megabyte", recipe(lambda r: r.update(description="x" * 10**6))),
    case("REC01", "seed of thirty digits", recipe(lambda r: r["finetune"].update(seed=10**30))),
    case("REC01", "sample without end", recipe(lambda r: r["corpus"].update(scale=1e300))),
    case("REC01", "key given twice", lambda b: twice(b / "recipe.json", "name")),
    case("REC01", "group of nothing", recipe(lambda r: rules_of(r)["*"].update(group_size=0))),
    case("SET03", "channel of no campaign", lines_of(lambda ls: [ls[0].replace("NA", "channel_7"), *ls[1:]])),
    case("SET05", "a segment twice", lines_of(lambda ls: [ls[0], ls[0], *ls[2:]])),
    case(
        "SET05", "a segment over two", lines_of(lambda ls: [ls[0].replace("duration: 1.0", "duration: 3.0"), *ls[1:]])
    ),
    case("EFF02", "speed of more segments than there are", of_many_segments, "DES04"),
)


def twice(path: Path, key: str) -> None:
    """Give a key of a JSON object twice."""
    text = path.read_text(encoding="utf-8").rstrip()
    path.write_text(f"{text[:-1]}, {json.dumps(key)}: 1}}", encoding="utf-8")
