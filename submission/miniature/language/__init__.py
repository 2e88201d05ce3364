"""The miniature's language: an English grammar of a few hundred words with its German and Chinese.

`sentences(domain, count, seed=..., split=...)` draws sentences of three to fifteen words. Each has exactly one right
translation, computed from the same tree (see `grammar`). A sentence belongs to `train` or `heldout` by a hash of its
English text, whoever draws it and whenever, so that a held-out sentence is never met in training.

Of the six domains, `talks` (conference talks) has words and turns of phrase that the others lack: it is what
fine-tuning adapts to.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Literal

from submission.errors import UserError
from submission.miniature.language import chinese, english, german
from submission.miniature.language.domains import SPECS, Domain
from submission.miniature.language.grammar import Tree
from submission.miniature.language.patterns import draw_tree

DOMAINS: tuple[str, ...] = tuple(SPECS)
HELDOUT_SHARE = 8
"""One source in this many is held out."""
_WORDS = range(3, 16)

Split = Literal["train", "heldout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """One sentence with its translations."""

    domain: str
    source: str
    """English as it is written."""
    spoken: str
    """English as a voice says it: numbers and abbreviations in words."""
    targets: dict[str, str]
    """By language: de, zh."""


def sentences(domain: str, count: int, *, seed: int, split: Split = "train") -> list[Sentence]:
    """Return `count` different sentences of a domain, the same ones for the same arguments.

    Raises UserError for a domain or split that does not exist, or more sentences than the domain can give.
    """
    if domain not in SPECS:
        raise UserError("miniature language", f"no domain {domain!r}", f"use one of {', '.join(DOMAINS)}")
    if split not in ("train", "heldout"):
        raise UserError("miniature language", f"no split {split!r}", "use train or heldout")
    spec = SPECS[domain]
    rng = Random(f"{domain}/{split}/{seed}")
    found: dict[str, Sentence] = {}
    idle = 0
    while len(found) < count:
        tree = draw_tree(spec, rng)
        source = source_of(tree) if tree else None
        if tree is None or source is None or source in found or split_of(source) != split:
            idle += 1
            if idle > 10_000:
                raise UserError("miniature language", f"{domain} has no {count} {split} sentences", "ask for fewer")
            continue
        found[source], idle = _sentence(domain, tree, source), 0
    return list(found.values())


def source_of(tree: Tree) -> str | None:
    """Return the tree's English text.

    None where it is too short or too long, or needs a verb form which the language does without (a dash in the table
    of verbs).
    """
    source = english.render(tree)
    words = source.split(" ")
    return source if len(words) in _WORDS and "-" not in words else None


def _sentence(domain: str, tree: Tree, source: str) -> Sentence:
    targets = {"de": german.render(tree), "zh": chinese.render(tree)}
    return Sentence(domain=domain, source=source, spoken=english.spoken(source), targets=targets)


def split_of(source: str) -> Split:
    """Return the split that a source text belongs to."""
    digest = hashlib.sha256(source.encode("utf-8")).digest()
    return "heldout" if int.from_bytes(digest[:4], "big") % HELDOUT_SHARE == 0 else "train"


@cache
def capacity(domain: str, draws: int = 20_000) -> int:
    """Return an estimate of how many sentences a domain has (a lower bound: Lincoln-Petersen on two samples)."""
    spec = SPECS[domain]
    first, second = (_sample(spec, draws, Random(f"capacity/{domain}/{half}")) for half in (1, 2))
    return len(first) * len(second) // max(1, len(first & second))


def _sample(spec: Domain, draws: int, rng: Random) -> set[str]:
    trees = (draw_tree(spec, rng) for _ in range(draws))
    return {source for tree in trees if tree and (source := source_of(tree))}
