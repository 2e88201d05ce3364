"""docs/extending/check.md, followed: its check works by its file and its line, with a good and a broken bundle."""

from __future__ import annotations

import pytest

from submission.bundle import checks
from tests.submission.bundle.checks import breaking
from tests.submission.bundle.checks.breaking import seal
from tests.support.extending import import_source, titled_blocks

PAGE = titled_blocks("check.md")
FILE = "submission/bundle/checks/outputs/no_break_blanks.py"


@pytest.fixture
def check(monkeypatch) -> checks.Check:
    """Return the check of the page, after adding its line to the list."""
    module = import_source(monkeypatch, FILE, PAGE[FILE])
    (added,) = eval(f"({PAGE['the line']})", vars(checks) | {"no_break_blanks": module})
    monkeypatch.setattr(checks, "CHECKS", tuple(sorted((*checks.CHECKS, added), key=lambda check: check.code)))
    return added


def test_the_check_of_the_page_finds_its_fault_alone_and_nothing_in_a_good_bundle(check, good):
    before = {finding.code for finding in checks.verify(good)}
    assert check.code not in before
    (broken,) = eval(f"({PAGE['the broken bundle']})", vars(breaking))
    broken.breaks(good)
    seal(good)
    found = [finding for finding in checks.verify(good) if finding.code not in before]
    assert [(f.code, f.severity, f.path, f.what) for f in found] == [
        (broken.code, "warning", "en-de/ACL.txt", "line 1: U+00A0")
    ]
    assert found[0].fix.startswith("Write a plain blank")


def test_the_check_of_the_page_is_a_row_of_the_table(check):
    assert f"| {check.code} | warning | {check.subject} | {check.fix} |" in checks.checks_table()
