"""LANG: whether outputs are in script and language of their target, swapped between pairs, or copies of each other."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations
from typing import TypeAlias

from submission.bundle.checks.finding import Fault
from submission.bundle.checks.outputs.texts import lines_of, read_output
from submission.bundle.untrusted.bundle_view import BundleView
from submission.bundle.untrusted.strict_json import Unreadable
from submission.text.language_profiles import reads_like
from submission.text.languages import NAMES
from submission.text.scripts import foreign_script, letters_by_script

Lines: TypeAlias = dict[int, Counter[str]]
"""Number of a line with letters -> script -> its letters."""
MOST_CHARACTERS = 2_000
"""Of a line, so many are looked at."""
MOST_NUMBERS = 5
"""So many line numbers are named."""


def other_script(view: BundleView) -> Iterator[Fault]:
    """Decode the test set again with its pair's prompt: the output is in another script than the target language's."""
    swapped = {path for paths in _swapped(view) for path in paths}
    for path, (lines, foreign) in _foreign_lines(view).items():
        if path not in swapped and _mostly(lines, foreign):
            yield path, f"{len(foreign):,} of its {len(lines):,} lines are in {_named(foreign)} script"


def lines_in_other_script(view: BundleView) -> Iterator[Fault]:
    """Look at these lines: they are in another script than the target language's, such as untranslated speech."""
    for path, (lines, foreign) in _foreign_lines(view).items():
        if foreign and not _mostly(lines, foreign):
            numbers = ", ".join(f"{number:,}" for number in list(foreign)[:MOST_NUMBERS])
            more = f" and {len(foreign) - MOST_NUMBERS:,} more" if len(foreign) > MOST_NUMBERS else ""
            yield path, f"in {_named(foreign)} script: line {numbers}{more} of {len(lines):,}"


def swapped_pairs(view: BundleView) -> Iterator[Fault]:
    """Exchange the two files, or write the bundle again: each is in the script of the other's target language."""
    for one, two in _swapped(view):
        yield one, f"is in the script of {two}, and that in the script of this: they are swapped"


def equal_outputs(view: BundleView) -> Iterator[Fault]:
    """Decode the test set again, or copy the right file: two pairs or two test sets cannot have one output."""
    first: dict[str, str] = {}
    for path in view.outputs:
        try:
            data = read_output(view, path)
        except Unreadable:
            continue  # reported as SET01 or TXT13
        if not data.strip():
            continue  # reported as TXT14
        digest = hashlib.sha256(data).hexdigest()
        if digest in first:
            yield path, f"is the same text as {first[digest]}"
        else:
            first[digest] = path


def other_language(view: BundleView) -> Iterator[Fault]:
    """Look at the output, and decode the test set again if need be: by its character trigrams it reads like the source,
    or like another pair's target, rather than like its target language.
    """
    spoken = {language for pair in view.campaign.pairs for language in (pair.source, pair.target)}
    for pair in view.campaign.pairs:
        for testset in pair.testsets:
            path = f"{pair.name}/{testset}.txt"
            try:
                text = read_output(view, path).decode("utf-8")
            except (Unreadable, UnicodeDecodeError):
                continue  # reported as SET01, TXT02 or TXT13
            if other := reads_like(text, pair.target, sorted(spoken)):
                yield path, f"reads like {_title(other)}, and is to be {_title(pair.target)}"


def _title(language: str) -> str:
    return NAMES.get(language, language).capitalize()


def _swapped(view: BundleView) -> list[tuple[str, str]]:
    """Return the paths of the same test set in two pairs, each in the script of the other."""
    found = []
    outputs = _letters(view)
    for one, two in combinations(view.campaign.pairs, 2):
        for testset in (name for name in one.testsets if name in two.testsets):
            here, there = f"{one.name}/{testset}.txt", f"{two.name}/{testset}.txt"
            if here not in outputs or there not in outputs:
                continue
            wrong = _is_foreign(outputs[here], one.target) and _is_foreign(outputs[there], two.target)
            if wrong and not (_is_foreign(outputs[here], two.target) or _is_foreign(outputs[there], one.target)):
                found.append((here, there))
    return found


def _is_foreign(lines: Lines, language: str) -> bool:
    return _mostly(lines, _in_other_script(lines, language))


def _in_other_script(lines: Lines, language: str) -> dict[int, str]:
    """Return number -> script of the lines that are in another script than a language's."""
    return {number: script for number, letters in lines.items() if (script := foreign_script(letters, language))}


def _mostly(lines: Lines, foreign: dict[int, str]) -> bool:
    return 2 * len(foreign) > len(lines)


def _named(foreign: dict[int, str]) -> str:
    return ", ".join(sorted(set(foreign.values())))


def _foreign_lines(view: BundleView) -> dict[str, tuple[Lines, dict[int, str]]]:
    """Return path -> (lines with letters, number -> script of those in another script)."""
    targets = {f"{pair.name}/{testset}.txt": pair.target for pair in view.campaign.pairs for testset in pair.testsets}
    return {path: (lines, _in_other_script(lines, targets[path])) for path, lines in _letters(view).items()}


@lru_cache(maxsize=1)
def _letters(view: BundleView) -> dict[str, Lines]:
    """Return the lines with letters of every output that can be read, by path; counted once for all checks."""
    outputs = {}
    for path in view.outputs:
        try:
            text = read_output(view, path).decode("utf-8")
        except (Unreadable, UnicodeDecodeError):
            continue  # reported as SET01, TXT02 or TXT13
        counted = ((number, letters_by_script(line[:MOST_CHARACTERS])) for number, line in enumerate(lines_of(text), 1))
        outputs[path] = {number: letters for number, letters in counted if letters}
    return outputs
