"""The miniature's language: an English grammar of a few hundred words with its German and Chinese.

`sentences(domain, count, seed=..., split=...)` draws sentences of three to fifteen words. Each has exactly one right
translation, computed from the same tree (see `grammar`). A sentence belongs to `train` or `heldout` by a hash of its
English text, whoever draws it and whenever, so that a held-out sentence is never met in training.

Of the six domains, `talks` (conference talks) has words and turns of phrase that the others lack: it is what
fine-tuning adapts to.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Literal

from submission.errors import UserError
from submission.miniature.language import chinese, english, generate, german
from submission.miniature.language.grammar import Tree

DOMAINS: tuple[str, ...] = tuple(generate.SPECS)
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
    if domain not in generate.SPECS:
        raise UserError("miniature language", f"no domain {domain!r}", f"use one of {', '.join(DOMAINS)}")
    if split not in ("train", "heldout"):
        raise UserError("miniature language", f"no split {split!r}", "use train or heldout")
    spec = generate.SPECS[domain]
    rng = Random(f"{domain}/{split}/{seed}")
    found: dict[str, Sentence] = {}
    idle = 0
    while len(found) < count:
        sentence = render(domain, generate.draw_tree(spec, rng))
        if sentence is None or sentence.source in found or split_of(sentence.source) != split:
            idle += 1
            if idle > 10_000:
                raise UserError(
                    "miniature language", f"{domain} has no {count} {split} sentences", "ask for fewer"
                )
            continue
        found[sentence.source], idle = sentence, 0
    return list(found.values())


def render(domain: str, tree: Tree | None) -> Sentence | None:
    """Return the tree's sentence.

    None for no tree, a sentence that is too short or too long, or one that would need a verb form which the language
    does without (a dash in the table of verbs).
    """
    if tree is None:
        return None
    source = english.render(tree)
    words = source.split(" ")
    if len(words) not in _WORDS or "-" in words:
        return None
    targets = {"de": german.render(tree), "zh": chinese.render(tree)}
    return Sentence(domain=domain, source=source, spoken=english.spoken(source), targets=targets)


def split_of(source: str) -> Split:
    """Return the split that a source text belongs to."""
    digest = hashlib.sha256(source.encode("utf-8")).digest()
    return "heldout" if int.from_bytes(digest[:4], "big") % HELDOUT_SHARE == 0 else "train"


def words_of(spoken: str) -> list[str]:
    """Return the words of a spoken text, in lower case and without punctuation."""
    return re.findall(r"[a-z']+", spoken.lower())


@cache
def capacity(domain: str, draws: int = 20_000) -> int:
    """Return an estimate of how many sentences a domain has (a lower bound: Lincoln-Petersen on two samples)."""
    spec = generate.SPECS[domain]
    first, second = (_sample(spec, draws, Random(f"capacity/{domain}/{half}")) for half in (1, 2))
    return len(first) * len(second) // max(1, len(first & second))


def _sample(spec: generate.Domain, draws: int, rng: Random) -> set[str]:
    rendered = (render(spec.name, generate.draw_tree(spec, rng)) for _ in range(draws))
    return {sentence.source for sentence in rendered if sentence}
