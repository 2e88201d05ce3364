"""Recipes as TOML files in `submission/recipes/`, or anywhere.

A recipe may extend another (`extends = "primary"`) and may say what differs on one campaign in a table
`[campaign.<name>]` that mirrors the whole: `[campaign.miniature.finetune]`. The order of precedence is, from
weakest: the extended recipe, its table for the campaign, this recipe, this recipe's table for the campaign.

A file may also hold a list of recipes, `[[systems]]`, each with a name: `ablation` is all of them, `ablation:bf16` is
one. What stands above the list is the same for every one of them; they extend each other by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submission.errors import UserError
from submission.system.campaign import FOLDER as CAMPAIGNS
from submission.system.recipe import Recipe
from submission.system.schema import locate, merged, nearest, parse, read_toml

FOLDER = Path(__file__).parents[1] / "recipes"
LIST = "systems"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a recipe stands: in a file, or in the list of a file."""

    path: Path
    item: str = ""

    @property
    def name(self) -> str:
        return self.item or self.path.stem

    def __str__(self) -> str:
        return f"recipe {self.path.name}{f':{self.item}' if self.item else ''}"


def read_recipe(name: str, campaign: str) -> Recipe:
    """Return the recipe of a shipped name (`primary`), a TOML file, or one of a list (`ablation:bf16`).

    The tables of the file for other campaigns are checked too, so that a mistake never waits for the day of
    the real run. Raises UserError naming file, key, what was expected and the nearest valid name.
    """
    place = _find(name)
    if not place.item and (listed := _items(place.path)):
        what = f"is a list of {len(listed)} recipes"
        raise UserError(str(place), what, f"name one, {place.path.stem}:{next(iter(listed))}")
    return _checked(place, campaign)


def read_recipes(name: str, campaign: str) -> list[Recipe]:
    """Return every recipe of a list (`ablation`), or the one that is named; UserError as `read_recipe`."""
    place = _find(name)
    listed = [] if place.item else [_Place(place.path, item) for item in _items(place.path)]
    return [_checked(each, campaign) for each in listed or [place]]


def _find(name: str) -> _Place:
    file, _, item = name.partition(":")
    place = _Place(locate(file, FOLDER, "recipe"), item)
    if item and item not in (listed := _items(place.path)):
        raise UserError(f"recipe {name}", f"{place.path.name} has no system {item!r}", nearest(item, listed))
    return place


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


def _checked(place: _Place, campaign: str) -> Recipe:
    campaigns = {campaign, *(p.stem for p in CAMPAIGNS.glob("*.toml"))}
    for other in sorted(_overlays(place, _table(place))):
        if other not in campaigns:
            raise UserError(f"{place}: campaign.{other}", "unknown campaign", nearest(other, campaigns))
        _parsed(place, other)
    return _parsed(place, campaign)


def _parsed(place: _Place, campaign: str) -> Recipe:
    table = _resolved(place, campaign, ())
    table.setdefault("name", place.name)
    return parse(Recipe, table, f"{place} (campaign {campaign})")


def _table(place: _Place) -> dict[str, Any]:
    """Return what stands at a place, with nothing that it extends; an item without `extends` takes the file's."""
    table = read_toml(place.path)
    table.pop(LIST, None)
    if not place.item:
        return table
    item = _items(place.path)[place.item]
    return item if "extends" in item else table | item


def _resolved(place: _Place, campaign: str, seen: tuple[_Place, ...]) -> dict[str, Any]:
    """Return a recipe's table with what it extends and, for a campaign, the campaign's tables laid in."""
    place = _Place(place.path.resolve(), place.item)
    if place in seen:
        circle = " -> ".join(p.name for p in (*seen, place))
        raise UserError(f"{place}: extends", f"forms a cycle: {circle}", "let one of them extend nothing")
    table = _table(place)
    overlays = _overlays(place, table)
    table.pop("campaign", None)
    base = _extended(place, table.pop("extends", None), campaign, (*seen, place))
    base.pop("name", None)
    return merged(merged(base, table), overlays.get(campaign, {}))


def _extended(place: _Place, parent: Any, campaign: str, seen: tuple[_Place, ...]) -> dict[str, Any]:
    """Return the table of what a recipe extends: another of its list, a file beside it, or a shipped one."""
    if parent is None:
        return {}
    if not isinstance(parent, str):
        what = f"expected a text, got {parent!r}"
        raise UserError(f"{place}: extends", what, 'write e.g. extends = "primary"')
    if place.item and parent in _items(place.path):
        return _resolved(_Place(place.path, parent), campaign, seen)
    beside = place.path.parent / f"{parent}.toml"
    own = beside.resolve() == place.path.resolve() and place.path.parent.resolve() != FOLDER
    found = _Place(beside) if beside.is_file() and not own else _find(parent)
    return _resolved(found, campaign, seen)


def _overlays(place: _Place, table: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return campaign -> what differs there, as the `campaign` table of a recipe says."""
    overlays = table.get("campaign", {})
    if not isinstance(overlays, dict) or not all(isinstance(o, dict) for o in overlays.values()):
        what = "expected tables by campaign"
        raise UserError(f"{place}: campaign", what, "write e.g. [campaign.miniature.finetune]")
    return overlays
