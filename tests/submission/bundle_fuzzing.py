"""Bundles broken at random and verified: no exception, no hang, nothing written, and nothing changed that passes.

A case is its number: `Random(number)` chooses what is changed and how, so that a failure names what to run again.
`python -m tests.submission.bundle_fuzzing --work DIR --cases 100000` runs many; a killed run resumes.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from random import Random

from submission.bundle.checks import findings_json, report, verify
from submission.errors import UserError
from tests.submission.mutations import FOLDER_CHANGES, MOST_READ, change_content, seal
from tests.support.fuzz_cases import Hang, at_most, run_cases, state

SECONDS = 100.0


def contents(bundle: Path) -> dict[str, bytes]:
    """Return relative path -> bytes of what the manifest lists, and what is no file."""
    return {
        str(p.relative_to(bundle)): p.read_bytes() if p.is_file() and p.stat().st_size < MOST_READ else b"?"
        for p in bundle.rglob("*")
        if not p.is_dir() and not p.is_symlink() and p.name != "manifest.json"
    }


def hold(number: int, pristine: Path, original: dict[str, bytes], place: Path) -> None:
    """Break the pristine bundle by the number of a case, verify it, and hold what the module's head promises."""
    chance = Random(number)
    bundle = Path(shutil.copytree(pristine, place / "bundle"))
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        (change_content if chance.random() < 0.7 else chance.choice(FOLDER_CHANGES))(bundle, chance)
    sealed = chance.random() < 0.5
    if sealed:
        seal(bundle)
    before = state(place)
    campaign = chance.choice(("miniature", "miniature", "iwslt26", None))
    try:
        with at_most(SECONDS):
            findings = verify(bundle, campaign)
            printed = report(bundle, campaign, findings) + findings_json(findings)
    except UserError:
        assert campaign is None, f"case {number}: cannot be checked"
    except (Exception, Hang) as error:
        raise AssertionError(f"case {number}: {error!r}") from error
    else:
        printed.encode("utf-8")
        assert all(c.isprintable() or c == "\n" for c in printed), f"case {number}: unprintable"
        if not sealed and contents(bundle) != original:
            assert any(f.severity == "error" for f in findings), f"case {number}: passes"
    assert state(place) == before, f"case {number}: something was written"
    shutil.rmtree(bundle)


def main() -> int:
    from submission.system.campaign import read_campaign
    from tests.submission.conftest import write_ingredients

    def begin(place: Path):
        pristine = write_ingredients(place / "ingredients", read_campaign("miniature")).bundle(place / "pristine")
        original = contents(pristine)
        return lambda number, scratch: hold(number, pristine, original, scratch)

    return run_cases("bundles", begin)


if __name__ == "__main__":
    sys.exit(main())
