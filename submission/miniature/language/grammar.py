"""The abstract syntax of the miniature's language: what a sentence means, before any of the three languages.

A sentence is a tree of these records. `english.render`, `german.render` and `chinese.render` each turn the same
tree into text; a tree has exactly one rendering per language, so that a reference is the only right answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from submission.miniature.language.words import Adjective, Adverb, City, Noun, Person, Time, Verb

Number = Literal["sg", "pl"]
Tense = Literal["present", "progressive", "past", "perfect", "future"]
Modal = Literal["", "can", "must", "should", "want"]
CopulaTense = Literal["present", "past", "future"]
Degree = Literal["", "very", "too"]
Question = Literal["", "polar", "who", "what", "when", "where", "why", "how many"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """A noun with what belongs to it."""

    noun: Noun
    number: Number = "sg"
    determiner: str = "the"
    """the, a, this, every, many, some, no, what, a possessive (my, his, ...), or nothing for a bare plural."""
    count: int = 0
    """Two or more things; the determiner is then empty."""
    adjective: Adjective | None = None
    owner: Phrase | None = None
    """Genitive: the quality *of the model*."""
    relative: Clause | None = None
    """A clause whose subject is this phrase: the woman *who lives in Berlin*."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Somebody by name."""

    person: Person


@dataclass(frozen=True, slots=True, kw_only=True)
class Pronoun:
    """I, he, she, we, you (always the polite form), they, or it (weather only)."""

    word: str


Nominal = Phrase | Named | Pronoun


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something is, or where it goes to."""

    at: Phrase | City | None
    """None where a question asks for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """A clause around a full verb."""

    subject: Nominal | None
    """None in an imperative, a relative clause, and a passive's infinitive."""
    verb: Verb
    object: Nominal | None = None
    second: Nominal | None = None
    """Recipient, or what something is compared with."""
    tense: Tense = "present"
    modal: Modal = ""
    negative: bool = False
    passive: bool = False
    """The subject is then the verb's object."""
    time: Time | None = None
    front: bool = False
    """The time opens the sentence."""
    adverb: Adverb | None = None
    place: Place | None = None
    goal: Place | None = None
    vehicle: str = ""
    purpose: Clause | None = None
    """`to improve the system`: a clause without a subject."""
    question: Question = ""
    imperative: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """`is (very) new`, `is faster than the train`."""

    adjective: Adjective
    degree: Degree = ""
    than: Nominal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """`rise by 12 percent`."""

    up: bool
    percent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Copula:
    """A clause around `be`; with a Change, around rise and fall."""

    subject: Nominal
    complement: Quality | Place | Change
    tense: CopulaTense = "present"
    negative: bool = False
    time: Time | None = None
    front: bool = False
    question: Literal["", "polar", "why", "where"] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Existence:
    """`There are three chairs in the kitchen`."""

    what: Phrase
    place: Place
    question: Literal["", "polar"] = ""


AnyClause = Clause | Copula | Existence


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """Two main clauses with and or but."""

    first: AnyClause
    conjunction: Literal["and", "but"]
    second: AnyClause


@dataclass(frozen=True, slots=True, kw_only=True)
class Subordinated:
    """A main clause with because (after it), if or when (before it)."""

    main: AnyClause
    conjunction: Literal["because", "if", "when"]
    condition: AnyClause


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """Somebody says that something is so."""

    subject: Nominal
    verb: Verb
    tense: Literal["present", "past"]
    content: AnyClause


Filler = Nominal | Place | Time | City | tuple[str, str, str]
"""What stands in an open place of a formula; the texts are English, German and Chinese."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula:
    """A fixed expression with open places.

    Texts hold `{name}`, or `{name:form}`: in German a case (acc, dat, gen) or a preposition with the dative, in
    English acc for the object form of a pronoun; goal for the way to a place.
    """

    en: str
    de: str
    zh: str
    slots: tuple[tuple[str, Filler], ...] = ()


Tree = AnyClause | Joined | Subordinated | Reported | Formula


def is_plural(nominal: Nominal) -> bool:
    """Return whether the nominal takes a plural verb."""
    if isinstance(nominal, Phrase):
        return nominal.number == "pl"
    return isinstance(nominal, Pronoun) and nominal.word in ("we", "you", "they")


def is_definite(nominal: Nominal | None) -> bool:
    """Return whether the nominal stands for something known (what Chinese can put after 把)."""
    if isinstance(nominal, Phrase):
        return nominal.determiner in ("the", "this") or nominal.determiner in POSSESSIVES
    return nominal is not None


POSSESSIVES = ("my", "his", "her", "our", "your", "their")
