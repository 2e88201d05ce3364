"""The recipe: everything that the participant chooses. `recipe_files.py` reads it from TOML."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from submission.system.recipe.decoding_options import DecodeOptions, SegmentOptions
from submission.system.recipe.quantize_options import QuantizeOptions
from submission.system.recipe.requirement import require
from submission.system.recipe.training_options import CorpusOptions, FinetuneOptions

LONGEST_NAME, LONGEST_DESCRIPTION = 200, 2_000
"""Characters: a recipe is data of somebody else once it lies in a bundle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """Under which name the outputs are uploaded."""

    team: str
    kind: Literal["primary", "contrastive"]
    condition: Literal["constrained", "unconstrained"]
    """`constrained`: ACL 60/60 is the only training data."""

    def __post_init__(self) -> None:
        plain = re.fullmatch(r"[A-Za-z0-9-]+", self.team)
        require(bool(plain), f"team: {self.team!r} goes into a model name; use letters, digits and hyphens only")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that the participant chooses."""

    name: str
    description: str
    upload: Upload
    corpus: CorpusOptions
    finetune: FinetuneOptions
    quantize: QuantizeOptions
    segment: SegmentOptions
    decode: DecodeOptions

    def __post_init__(self) -> None:
        plain = self.name.isprintable() and not re.search(r"^[.-]|[/\\]|^\s|\s$", self.name)
        require(
            plain and 0 < len(self.name) <= LONGEST_NAME,
            f"name: {self.name[:LONGEST_NAME]!r} names files; write letters, digits and hyphens",
        )
        lines = self.description.split("\n")
        require(
            len(self.description) <= LONGEST_DESCRIPTION and all(line.isprintable() for line in lines),
            f"description: not printable, or longer than {LONGEST_DESCRIPTION:,} characters; write a sentence",
        )
