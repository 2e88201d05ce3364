"""Check a package from outside: beside its bundle, every file is one that this version of the program writes itself.

The scripts are run by whoever receives the package, so nothing in it is believed: contents are compared byte for byte,
and whatever else lies there is a finding.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from submission.bundle.checks.finding import Check, Fault, Finding, sorted_findings
from submission.bundle.manifest import NAME as MANIFEST
from submission.bundle.untrusted.folder import MOST_ENTRIES
from submission.package.contents import BUNDLE, package_files
from submission.text.characters import printable

ENDING = "-package"
"""What the name of a package's folder ends with, after the name of its system."""
LONGEST_NAME = 200


def is_package(folder: Path) -> bool:
    """Return whether a folder looks like a package and not like a bundle."""
    inside = folder / BUNDLE
    return os.path.lexists(inside / MANIFEST) and not os.path.lexists(folder / MANIFEST)


def package_findings(folder: Path) -> list[Finding]:
    """Return what is wrong beside the bundle of a package; paths are relative to the bundle."""
    return sorted_findings(CHECK.findings(folder))


def other_content(folder: Path) -> Iterator[Fault]:
    """Run none of its scripts; get the package again, or write one of its bundle (`python -m submission package`).

    An environment that setup.sh made lies elsewhere (PACKAGE_VENV) while a package is checked.
    """
    expected = package_files(_system_name(folder))
    missing = dict(expected)
    folders = {str(parent) for name in expected for parent in PurePosixPath(name).parents}
    for name, status in _entries(folder):
        if isinstance(status, str):
            yield f"../{printable(name)}" if name else "..", status
            if not name:
                return  # what is missing is not known
            continue
        if stat.S_ISDIR(status.st_mode):
            if name not in folders:
                yield f"../{printable(name)}", "does not belong in a package"
            continue
        wanted = missing.pop(name, None)
        if wanted is None:
            yield f"../{printable(name)}", "does not belong in a package"
        elif not stat.S_ISREG(status.st_mode):
            yield f"../{name}", "is a link or no regular file"
        elif status.st_nlink > 1:
            yield f"../{name}", f"has {status.st_nlink:,} names (hard links): it changes whenever one of them does"
        elif status.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX):
            yield f"../{name}", "runs as another user: set-user-ID, set-group-ID or sticky bit"
        elif not _holds(folder / name, wanted):
            yield f"../{name}", "is not the file that this version writes"
    for name in missing:
        yield f"../{name}", "is missing"


CHECK = Check(
    code="PKG01", severity="error", subject="package with a file that this version does not write", find=other_content
)
"""The one check of a package beside those of its bundle."""


def _system_name(folder: Path) -> str:
    """Return the name that the README has to give: the first line's, where that is a short one of plain characters."""
    path = folder / "README.md"
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # opening a pipe would wait for a writer
            return ""
        with path.open("rb") as file:
            title = file.readline(LONGEST_NAME).decode("utf-8", "replace").removeprefix("# ").strip()
    except OSError:
        return ""
    plain = title.replace("-", "").replace("_", "").replace(".", "").isalnum()
    return title if title.isascii() and plain else ""


def _entries(folder: Path) -> Iterator[tuple[str, os.stat_result | str]]:
    """Yield path and status of every file and folder beside the bundle, links not followed.

    In place of the status stands why a folder could not be listed, or that there are too many entries.
    """
    count = 0
    pending = [""]
    while pending:
        here = pending.pop()
        try:
            with os.scandir(folder / here) as listing:
                some = itertools.islice(listing, MOST_ENTRIES + 1)
                entries = [(entry.name, entry.stat(follow_symlinks=False)) for entry in some]
        except OSError as error:
            yield here, f"cannot be listed ({error.strerror})"
            continue
        count += len(entries)
        if count > MOST_ENTRIES:
            yield "", "holds far more files than a package has"
            return
        for base, status in entries:
            name = f"{here}/{base}" if here else base
            is_folder = stat.S_ISDIR(status.st_mode)
            if name == BUNDLE and is_folder:
                continue
            if is_folder:
                pending.append(name)
            yield name, status


def _holds(path: Path, content: bytes) -> bool:
    """Return whether a file has this content, reading no more than that and one byte."""
    try:
        with path.open("rb") as file:
            return file.read(len(content) + 1) == content
    except OSError:
        return False
