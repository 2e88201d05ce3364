"""The six domains of the miniature's language: which words each uses, and its habits of speech."""

from __future__ import annotations

from dataclasses import dataclass

from submission.miniature.language.words import Time


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A subject matter: its words and its habits of speech."""

    name: str
    letter: str
    patterns: dict[str, int]
    tenses: dict[str, int]
    subjects: dict[str, int]
    """Weights of pronouns, names, titled names and noun phrases as subjects."""
    clock_share: float = 0.2
    """How many of its times say the hour."""
    frames: tuple[Time, ...] = ()
    """What opens a sentence as a time does (in this paper)."""


def _talk_frames() -> tuple[Time, ...]:
    rows = (
        ("in this paper", "in diesem Artikel", "在这篇论文中"),
        ("in the first experiment", "im ersten Experiment", "在第一个实验中"),
        ("in the second experiment", "im zweiten Experiment", "在第二个实验中"),
        ("first", "zuerst", "首先"),
        ("then", "dann", "然后"),
        ("finally", "schließlich", "最后"),
        ("in this talk", "in diesem Vortrag", "在这个报告中"),
    )
    return tuple(Time(en=en, de=de, zh=zh, when="frame") for en, de, zh in rows)


_USUAL = {
    "statement": 34,
    "polar": 9,
    "asked": 8,
    "quality": 8,
    "comparison": 3,
    "joined": 7,
    "because": 8,
    "condition": 7,
}
_USUAL |= {
    "reported": 5,
    "relative": 4,
    "existence": 4,
    "located": 3,
    "formula": 6,
    "imperative": 4,
    "passive": 0,
    "change": 0,
}
_USUAL |= {"purpose": 0, "framed": 0}
_TENSE = {
    "present": 3,
    "progressive": 2,
    "past": 5,
    "perfect": 1,
    "future": 2,
    "can": 1,
    "must": 1,
    "should": 1,
    "want": 2,
}

SPECS = {
    domain.name: domain
    for domain in (
        Domain(
            name="daily",
            letter="d",
            patterns=_USUAL,
            tenses=_TENSE,
            subjects={"pronoun": 4, "name": 4, "phrase": 5},
        ),
        Domain(
            name="travel",
            letter="t",
            patterns=_USUAL | {"formula": 12, "located": 5},
            tenses=_TENSE | {"future": 4},
            subjects={"pronoun": 5, "name": 2, "phrase": 6},
            clock_share=0.4,
        ),
        Domain(
            name="telephone",
            letter="p",
            patterns=_USUAL
            | {"formula": 22, "imperative": 12, "polar": 12, "comparison": 0, "existence": 1, "relative": 2},
            tenses=_TENSE | {"can": 5, "want": 4, "future": 4, "must": 3},
            subjects={"pronoun": 8, "titled": 4, "phrase": 4},
            clock_share=0.6,
        ),
        Domain(
            name="news",
            letter="n",
            patterns=_USUAL
            | {
                "passive": 10,
                "change": 8,
                "reported": 12,
                "imperative": 0,
                "polar": 2,
                "asked": 2,
                "formula": 10,
            },
            tenses=_TENSE | {"past": 9, "future": 5, "progressive": 1},
            subjects={"pronoun": 1, "titled": 2, "phrase": 12},
            clock_share=0.05,
        ),
        Domain(
            name="television",
            letter="v",
            patterns=_USUAL | {"polar": 14, "asked": 14, "passive": 3, "formula": 12, "imperative": 6},
            tenses=_TENSE | {"want": 4, "must": 3},
            subjects={"pronoun": 8, "name": 3, "phrase": 4},
            clock_share=0.1,
        ),
        Domain(
            name="talks",
            letter="k",
            patterns=_USUAL
            | {
                "purpose": 10,
                "framed": 12,
                "formula": 14,
                "imperative": 0,
                "located": 0,
                "existence": 0,
                "comparison": 8,
                "quality": 8,
            }
            | {"polar": 3, "asked": 6},
            tenses={
                "present": 5,
                "past": 5,
                "future": 2,
                "can": 4,
                "must": 1,
                "want": 2,
                "perfect": 1,
                "should": 1,
            },
            subjects={"pronoun": 8, "phrase": 6},
            clock_share=0.0,
            frames=_talk_frames(),
        ),
    )
}
