"""The campaign: what the organisers fix. One TOML file in `submission/campaigns/`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from submission.system.schema import locate, parse, read_toml

FOLDER = Path(__file__).parents[1] / "campaigns"
UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def size_bytes(text: str) -> int:
    """Return the bytes of a size with its unit, "4 GiB"; ValueError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]+)", text)
    if match is None or match[2] not in UNITS:
        raise ValueError(
            f"size_limit: expected a number and a unit, got {text!r}; write e.g. '4 GiB' (units: {', '.join(UNITS)})"
        )
    return int(float(match[1]) * UNITS[match[2]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The base model that every submission must derive from."""

    name: str
    """Name of its folder below `models/` in the data folder."""
    hub: str
    """Where it is published; shown in texts, never fetched from."""
    architecture: str
    """The file of `submission/model/families/` that knows its tensors."""
    end_token: str
    """The token that ends a translation, in training and in decoding."""
    window_seconds: int
    """Longest audio that its encoder takes at once."""
    shipped: str | None = None
    """Folder below `submission/miniature` of its weights, where they ship with the repository."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One direction of translation and the test sets that it is judged on."""

    name: str
    """As the evaluation server writes it, `en-de`."""
    source: str
    target: str
    target_language: str
    """As the prompt names it, `German`."""
    testsets: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSet:
    """One blind test set."""

    name: str
    segmentation: Literal["free", "given", "regions"]
    """Whether the participant segments the recordings, the organisers ship the segments, or they name the regions that
    are to be translated, each of which the participant segments."""
    channels: Literal["mean", "first", "each"] = "mean"
    """Of several channels: their mean is translated, the first one, or each by itself, a speaker in each."""

    def __post_init__(self) -> None:
        if self.segmentation == "given" and self.channels == "each":
            raise ValueError(
                f"{self.name}: given segments name no channel, and channels = 'each' translates each by itself; "
                "write 'mean' or 'first'"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """Everything that the organisers fix."""

    name: str
    edition: str
    prompt: str
    """What the model reads; `{target_language}` stands for the pair's."""
    naming: str
    """Model name on the evaluation server; `{team}`, `{pair}`, `{condition}`, `{kind}` are filled in."""
    made_here: bool
    """Whether `python -m submission.miniature data` makes the data folder; otherwise `--data` names it."""
    model: Model
    pairs: tuple[Pair, ...]
    testsets: tuple[TestSet, ...]
    size_limit: str | None = None
    """Largest model folder, with its unit, compared in bytes; None where the organisers state none."""

    def __post_init__(self) -> None:
        if self.size_limit is not None:
            size_bytes(self.size_limit)
        if self.made_here and self.model.shipped is None:
            raise ValueError("made_here: the data folder holds a shipped model; name its folder as model.shipped")
        for field, text in (("prompt", self.prompt), ("naming", self.naming)):
            expected = {"target_language"} if field == "prompt" else {"team", "pair", "condition", "kind"}
            got = set(re.findall(r"\{(\w*)\}", text))
            if got != expected:
                raise ValueError(
                    f"{field}: expected the fields {sorted(expected)}, got {sorted(got)}; write each once in braces"
                )
        names = [t.name for t in self.testsets]
        if len(set(names)) < len(names):
            raise ValueError(f"testsets: a name occurs twice in {names}; give each test set one entry")
        for pair in self.pairs:
            if unknown := set(pair.testsets) - set(names):
                raise ValueError(
                    f"pairs: {pair.name} names unknown test sets {sorted(unknown)}; known: {', '.join(names)}"
                )

    @property
    def size_limit_bytes(self) -> int | None:
        """The size limit in bytes; None where there is none."""
        return None if self.size_limit is None else size_bytes(self.size_limit)

    def meets_limit(self, size: int) -> bool:
        """Return whether a model folder of this many bytes may be entered."""
        return self.size_limit_bytes is None or size <= self.size_limit_bytes

    def testset(self, name: str) -> TestSet:
        """Return the test set of a name; KeyError where there is none."""
        return {t.name: t for t in self.testsets}[name]


def read_campaign(name: str) -> Campaign:
    """Return the campaign of a shipped name (`iwslt26`) or of a TOML file; UserError says what is wrong."""
    path = locate(name, FOLDER, "campaign")
    return parse(Campaign, read_toml(path), f"campaign {path.name}")
