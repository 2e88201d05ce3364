"""Recipes as TOML files in `submission/recipes/`, or anywhere.

A recipe may extend another (`extends = "primary"`) and may hold what differs on one campaign in a table
`[campaign.<name>]` that mirrors the whole: `[campaign.miniature.finetune]`. The order of precedence is, from
weakest: the extended recipe, its table for the campaign, this recipe, this recipe's table for the campaign.

A file may also hold a list of recipes, `[[systems]]`, each with a name: `ablation` is all of them, `ablation:bf16` is
one. What stands above the list is the same for every one of them; they extend each other by name.

`frontier@2.5GB` is a recipe with another target in bytes: `quantize.target = "2.5 GB"`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submission.errors import UserError
from submission.system.campaign import FOLDER as CAMPAIGNS
from submission.system.recipe.quantize_options import LIMIT
from submission.system.recipe.recipe import Recipe
from submission.system.schema import locate, merged, nearest, parse, read_toml

FOLDER = Path(__file__).parents[2] / "recipes"
LIST = "systems"


@dataclass(frozen=True, slots=True)
class _Location:
    """Where a recipe stands: in a file, or in the list of a file."""

    path: Path
    item: str = ""
    target: str = ""
    """The target in bytes that takes the place of the recipe's, `2.5 GB`; empty: the recipe's own."""

    @property
    def name(self) -> str:
        suffix = f"-{self.target.replace(' ', '').lower()}" if self.target else ""
        return (self.item or self.path.stem) + suffix

    def __str__(self) -> str:
        item, target = f":{self.item}" if self.item else "", f"@{self.target}" if self.target else ""
        return f"recipe {self.path.name}{item}{target}"


def read_recipe(name: str, campaign: str) -> Recipe:
    """Return the recipe of a shipped name (`primary`), a TOML file, or one of a list (`ablation:bf16`).

    Behind an `@`, a size or `limit` takes the place of the recipe's target: `frontier@2.5GB`, `frontier@limit`.

    The tables of the file for other campaigns are checked too, so that a mistake never waits for the day of
    the real run. Raises UserError naming file, key, what was expected and the nearest valid name.
    """
    location = _find(name)
    if not location.item and (listed := _items(location.path)):
        what = f"is a list of {len(listed)} recipes"
        raise UserError(str(location), what, f"name one, {location.path.stem}:{next(iter(listed))}")
    return _checked(location, campaign)


def read_recipes(name: str, campaign: str) -> list[Recipe]:
    """Return every recipe of a list (`ablation`), or the one that is named; UserError as `read_recipe`."""
    location = _find(name)
    listed = [] if location.item else [_Location(location.path, item) for item in _items(location.path)]
    if listed and location.target:
        fix = f"name one, {location.path.stem}:{listed[0].item}@{location.target.replace(' ', '')}"
        raise UserError(f"recipe {name}", "is a list, and a target is that of one system", fix)
    return [_checked(each, campaign) for each in listed or [location]]


def _find(name: str) -> _Location:
    base, target = _split_target(name)
    file, _, item = base.partition(":")
    location = _Location(locate(file, FOLDER, "recipe"), item, target)
    if item and item not in (listed := _items(location.path)):
        raise UserError(f"recipe {name}", f"{location.path.name} has no system {item!r}", nearest(item, listed))
    return location


def _split_target(name: str) -> tuple[str, str]:
    """Return the name of a recipe and the target behind its `@`, `2.5 GB` or `limit`; empty where none is."""
    base, _, size = name.rpartition("@")
    if base and size == LIMIT:
        return base, LIMIT
    number = re.fullmatch(r"([0-9.]+)\s*([A-Za-z]+)", size) if base else None
    if not number and base and "/" not in size and not size.endswith(".toml"):  # no path with an @ in it
        what = f"{size!r} behind the @ is no size"
        raise UserError(f"recipe {name}", what, f"write a number and its unit, such as {base}@2.5GB, or {base}@{LIMIT}")
    return (base, f"{number[1]} {number[2]}") if number else (name, "")


def _items(path: Path) -> dict[str, dict[str, Any]]:
    """Return name -> table of each recipe in the list of a file; nothing where there is no list."""
    listed = read_toml(path).get(LIST, [])
    where, fix = f"recipe {path.name}: {LIST}", f'begin each with [[{LIST}]] and name = "…"'
    if not isinstance(listed, list) or not all(isinstance(i, dict) and isinstance(i.get("name"), str) for i in listed):
        raise UserError(where, "expected a list of tables, each with a name", fix)
    items = {item["name"]: item for item in listed}
    if len(items) < len(listed):
        raise UserError(where, "two of them have one name", "name each differently")
    return items


def _checked(location: _Location, campaign: str) -> Recipe:
    campaigns = {campaign, *(p.stem for p in CAMPAIGNS.glob("*.toml"))}
    for other in sorted(_overlays(location, _table(location))):
        if other not in campaigns:
            raise UserError(f"{location}: campaign.{other}", "unknown campaign", nearest(other, campaigns))
        _parsed(location, other)
    return _parsed(location, campaign)


def _parsed(location: _Location, campaign: str) -> Recipe:
    table = _resolved(location, campaign, ())
    if location.target:
        table = merged(table, {"quantize": {"target": location.target}})
        of = location.item or location.path.stem
        size = "the campaign's limit" if location.target == LIMIT else location.target
        table |= {"name": location.name, "description": f"The recipe {of} in {size}"}
    table.setdefault("name", location.name)
    return parse(Recipe, table, f"{location} (campaign {campaign})")


def _table(location: _Location) -> dict[str, Any]:
    """Return what a location holds, with nothing that it extends; an item without `extends` takes the file's."""
    table = read_toml(location.path)
    table.pop(LIST, None)
    if not location.item:
        return table
    item = _items(location.path)[location.item]
    return item if "extends" in item else table | item


def _resolved(location: _Location, campaign: str, seen: tuple[_Location, ...]) -> dict[str, Any]:
    """Return a recipe's table with what it extends and, for a campaign, the campaign's tables laid in."""
    location = _Location(location.path.resolve(), location.item)  # a target is laid in last, by the caller
    if location in seen:
        circle = " -> ".join(p.name for p in (*seen, location))
        raise UserError(f"{location}: extends", f"forms a cycle: {circle}", "let one of them extend nothing")
    table = _table(location)
    overlays = _overlays(location, table)
    table.pop("campaign", None)
    base = _extended(location, table.pop("extends", None), campaign, (*seen, location))
    base.pop("name", None)
    return merged(merged(base, table), overlays.get(campaign, {}))


def _extended(location: _Location, parent: Any, campaign: str, seen: tuple[_Location, ...]) -> dict[str, Any]:
    """Return the table of what a recipe extends: another of its list, a file beside it, or a shipped one."""
    if parent is None:
        return {}
    if not isinstance(parent, str):
        what = f"expected a text, got {parent!r}"
        raise UserError(f"{location}: extends", what, 'write e.g. extends = "primary"')
    if location.item and parent in _items(location.path):
        return _resolved(_Location(location.path, parent), campaign, seen)
    beside = location.path.parent / f"{parent}.toml"
    own = beside.resolve() == location.path.resolve() and location.path.parent.resolve() != FOLDER
    found = _Location(beside) if beside.is_file() and not own else _find(parent)
    return _resolved(found, campaign, seen)


def _overlays(location: _Location, table: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return campaign -> what differs there, as in the `campaign` table of a recipe."""
    overlays = table.get("campaign", {})
    if not isinstance(overlays, dict) or not all(isinstance(o, dict) for o in overlays.values()):
        what = "expected tables by campaign"
        raise UserError(f"{location}: campaign", what, "write e.g. [campaign.miniature.finetune]")
    return overlays
