"""The folder that `verify` is called with, and the campaign that it is compared with."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from submission.bundle.manifest import CAMPAIGN_FILE, NAME
from submission.bundle.untrusted.folder import MOST_ENTRIES, Folder
from submission.bundle.untrusted.strict_json import Unreadable
from submission.errors import UserError
from submission.system.campaign import FOLDER, Campaign, read_campaign
from submission.text.characters import printable

MOST_NAMED = 10
_WRITTEN = "name the folder that `python -m submission bundle` wrote"


def require_bundle_folder(folder: Path) -> None:
    """Raise UserError where there is no folder, or one that holds bundles and is none itself."""
    where = f"bundle {folder}"
    if os.path.isfile(folder):
        raise UserError(where, "is a file, and a bundle is a folder", "unpack it and name the folder that was in it")
    if not os.path.isdir(folder):
        raise UserError(where, "no such folder", _WRITTEN)
    if not _looks_like_a_bundle(folder) and (names := _bundles_below(folder)):
        listed = ", ".join(printable(name) for name in names[:MOST_NAMED])
        more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
        raise UserError(where, f"is not a bundle, but holds some: {listed}{more}", "name one of them")


def _looks_like_a_bundle(folder: str | Path) -> bool:
    return any(os.path.lexists(os.path.join(folder, name)) for name in (NAME, CAMPAIGN_FILE))


def _bundles_below(folder: Path) -> list[str]:
    """Return the names of a folder's own folders that look like bundles, sorted; hidden ones are incomplete."""
    try:
        with os.scandir(folder) as listing:
            names = [item.name for item in itertools.islice(listing, MOST_ENTRIES) if not item.name.startswith(".")]
    except OSError:
        return []
    return sorted(name for name in names if _looks_like_a_bundle(os.path.join(folder, name)))


def chosen_campaign(folder: Path, campaign: str | None) -> Campaign:
    """Return the campaign of a name or TOML file; for None the shipped one that the bundle names."""
    return read_campaign(campaign if campaign is not None else _named_campaign(folder))


def _named_campaign(folder: Path) -> str:
    shipped = sorted(path.stem for path in FOLDER.glob("*.toml"))
    try:
        name = Folder(folder).table(CAMPAIGN_FILE).get("name")
    except Unreadable as error:
        what = f"{CAMPAIGN_FILE} {error}"
    else:
        if name in shipped:
            return str(name)
        what = f"{CAMPAIGN_FILE} names the unknown campaign {printable(repr(name)[:80])}"
    fix = f"name the campaign to check against with --campaign (shipped: {', '.join(shipped)})"
    raise UserError(f"bundle {folder}", what, fix)
