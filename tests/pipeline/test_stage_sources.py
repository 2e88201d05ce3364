"""A stage whose source changes raises its revision, or the golden file acknowledges that its output stays."""

from __future__ import annotations

import sys

import pytest

from submission.system.revisions import REVISIONS
from tests.support.stage_sources import PYTHON, complaints, read_golden, stage_functions, stage_sources


@pytest.mark.skipif(sys.version_info[:2] != PYTHON, reason="ast.unparse differs between Python versions")
def test_no_source_of_a_stage_changed_without_its_revision_or_an_acknowledgement():
    found = list(complaints(stage_sources(), read_golden()))
    assert not found, "\n".join(found)


def test_every_stage_has_a_function():
    assert stage_functions().keys() == REVISIONS.keys()


def test_a_changed_source_says_what_to_do():
    golden = {"merge": {"revision": 2, "digest": "a"}}
    (message,) = complaints({"merge": {"revision": 2, "digest": "b"}}, golden)
    assert "raise REVISIONS['merge']" in message and "python -m tests.support.stage_sources" in message
    (message,) = complaints({"merge": {"revision": 3, "digest": "b"}}, golden)
    assert message == "stage merge: its revision is new; run `python -m tests.support.stage_sources`"
