"""PRI: whether exactly one of several uploaded systems of a team is primary in each condition, and teams are spelled
in one way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from submission.bundle.checks.finding import Fault
from submission.bundle.untrusted.bundle_view import BundleView
from submission.bundle.untrusted.strict_json import Unreadable
from submission.text.characters import printable


def other_than_one_primary(views: Sequence[BundleView]) -> Iterator[Fault]:
    """Set `upload.kind` to "primary" in the recipe of one system and to "contrastive" in all others of the team and
    condition, and write their bundles again.
    """
    for (campaign, team, condition), kinds in sorted(_kinds(views).items()):
        primary = sorted(name for name, kind in kinds if kind == "primary")
        if len(primary) != 1:
            named = f": {', '.join(primary)}" if primary else ""
            what = f"{len(primary)} of {len(kinds)} bundles are primary, expected exactly one{named}"
            yield "", f"campaign {printable(campaign)}, team {printable(team)}, {condition}: {what}"


def spelled_otherwise(views: Sequence[BundleView]) -> Iterator[Fault]:
    """Spell `upload.team` in all recipes of the team in the same way, and write their bundles again: names that differ
    in case only are two teams on a server and one for its readers.
    """
    spellings: dict[str, set[str]] = {}
    for view in views:
        if not isinstance(view.recipe, Unreadable):
            spellings.setdefault(view.recipe.upload.team.casefold(), set()).add(view.recipe.upload.team)
    for _, teams in sorted(spellings.items()):
        if len(teams) > 1:
            yield "", f"teams {', '.join(map(printable, sorted(teams)))} differ in case only"


def _kinds(views: Sequence[BundleView]) -> Mapping[tuple[str, str, str], list[tuple[str, str]]]:
    """Return (campaign, team, condition) -> (bundle, kind) of those with a valid recipe; REC01 reports the others."""
    kinds: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for view in views:
        if not isinstance(view.recipe, Unreadable):
            upload = view.recipe.upload
            entry = (printable(str(view.path), 4_096), upload.kind)
            # The evaluation server's names are compared by people: a team is one however it is spelled.
            kinds.setdefault((view.campaign.name, upload.team.casefold(), upload.condition), []).append(entry)
    return kinds
