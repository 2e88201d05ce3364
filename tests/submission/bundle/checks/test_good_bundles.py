"""A good bundle is never refused, however unusual the place where it lies and the way in which it is named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from submission.bundle.checks import verify

ROOT = Path(__file__).parents[4]


def moved(good: Path, place: Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copytree(good, place))


def read_only(bundle: Path) -> Path:
    for path in [*bundle.rglob("*"), bundle]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return bundle


def executable(bundle: Path) -> Path:
    """As a file system without modes (a USB stick, a share of Windows) shows every file."""
    for path in [*bundle.rglob("*"), bundle]:
        path.chmod(0o777)
    return bundle


def linked_parent(bundle: Path) -> Path:
    (bundle.parent / "link").symlink_to(bundle.parent)
    return bundle.parent / "link" / bundle.name


def linked(bundle: Path) -> Path:
    (bundle.parent / "link").symlink_to(bundle.name)
    return bundle.parent / "link"


def old(bundle: Path) -> Path:
    for path in bundle.rglob("*"):
        os.utime(path, (0, 0))
    return bundle


PLACES = {
    "blanks": lambda b: moved(b, b.parent / " my bundles " / "the bundle"),
    "no ASCII": lambda b: moved(b, b.parent / "Ergebnisse für Zürich 译文" / "bündel"),
    "not UTF-8": lambda b: moved(b, Path(os.fsdecode(os.fsencode(b.parent) + b"/\xff\xfe")) / "bundle"),
    "deep": lambda b: moved(b, b.parent.joinpath(*["d" * 100] * 15) / "bundle"),
    "hidden": lambda b: moved(b, b.parent / ".hidden" / ".bundle"),
    "like an option": lambda b: moved(b, b.parent / "-rf" / "--json"),
    "read-only": read_only,
    "executable": executable,
    "linked parent": linked_parent,
    "linked": linked,
    "old": old,
    "upwards": lambda b: b / ".." / b.name / "model" / "..",
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_a_good_bundle_is_good_in_any_place(good, place):
    assert [f for f in verify(place(good)) if f.severity == "error"] == []


@pytest.mark.parametrize(
    ("locale", "encoding"),
    [
        ("C", "ascii"),
        ("POSIX", "utf-8"),
        ("de_DE.ISO-8859-1", "latin-1"),
        ("tr_TR.UTF-8", "utf-8"),
        ("zh_CN.GBK", "gbk"),
    ],
)
def test_a_bundle_is_reported_in_any_locale(good, locale, encoding):
    """The folder's name and a finding hold characters that the terminal may not have."""
    place = moved(good, good.parent / "Bündel 译文")
    (place / "model" / "译文.txt").touch()
    environment = os.environ | {"LC_ALL": locale, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    for options in ([], ["--json"]):
        line = [sys.executable, "-m", "submission", "verify", str(place), "--campaign", "miniature", *options]
        done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, check=False)
        assert done.returncode == 1 and b"Traceback" not in done.stderr
        assert b"FILE05" in done.stdout


@pytest.mark.parametrize("name", [".", "bundle", "bundle/", "./bundle//", "../{parent}/bundle"])
def test_a_bundle_is_named_from_where_one_stands(good, monkeypatch, name):
    monkeypatch.chdir(good if name == "." else good.parent)
    assert [f for f in verify(Path(name.format(parent=good.parent.name))) if f.severity == "error"] == []


def test_a_recipe_that_cuts_without_the_classifier_is_bundled_without_it(ingredients, tmp_path):
    recipe = replace(ingredients.recipe, segment=replace(ingredients.recipe.segment, method="vad"))
    bundle = replace(ingredients, recipe=recipe).bundle(tmp_path / "vad", segmenter=None)
    assert not (bundle / "segmenter").exists()
    assert [f for f in verify(bundle) if f.severity == "error"] == []


def test_texts_that_only_look_odd_are_no_errors(good):
    lines = (
        "(MZ) 100 % {team} <b> \\n #!",
        "Ça coûte 5 €, naïve façade: ½ µm → ∞ 👩‍👩‍👧",
        "𠮷野家で「你好」— „Gänsefüßchen“",
    )
    (good / "en-de" / "ACL.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    errors = {f.code for f in verify(good) if f.severity == "error"}
    assert errors == {"MAN04", "SCO02"}  # of the file and the blank line that were there before
