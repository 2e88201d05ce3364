"""Random noun phrases, times and places of a domain."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import TypeVar

from submission.miniature.language import closed
from submission.miniature.language.domains import Domain
from submission.miniature.language.grammar import Named, Nominal, Number, Phrase, Place, Pronoun
from submission.miniature.language.nouns import adjectives, nouns
from submission.miniature.language.words import Adjective, Noun, Time

_OWN = {"I": "my", "he": "his", "she": "her", "we": "our", "you": "your", "they": "their"}
WHERE = frozenset(("indoor", "outdoor", "shop", "stop", "sight", "lodging", "public", "stage", "town"))
_NOBODYS = frozenset(
    ("org", "public", "sight", "shop", "stop", "town", "show", "disaster", "contest", "amount", "policy")
)
"""Tags of what is not said to be mine or yours."""


Word = TypeVar("Word", bound=str)


def weighted(rng: Random, weights: dict[Word, int]) -> Word:
    """Return one of the words, each with a probability proportional to its weight."""
    return rng.choices(list(weights), weights=list(weights.values()))[0]


@cache
def nouns_of(letter: str, tags: frozenset[str]) -> tuple[Noun, ...]:
    """Return the nouns of a domain, by its letter, that have at least one of the tags."""
    return tuple(noun for noun in nouns() if letter in noun.domains and noun.tags & tags)


def draw_subject(domain: Domain, rng: Random, tags: frozenset[str], *, you: bool = False) -> Nominal | None:
    """Return a subject that has one of the tags, None where the domain has none; you: often `you` for a person."""
    kind = weighted(rng, domain.subjects)
    human = "person" in tags or "scholar" in tags
    if human and kind == "pronoun":
        words = ["I", "we", "they"] if "scholar" in tags else ["I", "he", "she", "we", "they"]
        return Pronoun(word="you" if you and rng.random() < 0.6 else rng.choice(words))
    if "person" in tags and kind in ("name", "titled"):
        return Named(person=rng.choice(closed.people() if kind == "name" else closed.titled()))
    found = nouns_of(domain.letter, tags)
    return draw_phrase(rng, rng.choice(found), subject=True) if found else None


def draw_object(
    domain: Domain, rng: Random, tags: frozenset[str], subject: Nominal | None, *, tall: bool = True
) -> Nominal | None:
    """Return an object that has one of the tags and differs from the subject; None where the draw gives none.

    tall: with adjectives and possessives.
    """
    if "person" in tags and nouns_of(domain.letter, frozenset(("person",))) and rng.random() < 0.5:
        if rng.random() < 0.6:
            word = rng.choice(["I", "he", "she", "we", "they", "you"])
            taken = subject.word if isinstance(subject, Pronoun) else "you" if subject is None else ""
            return None if word == taken or {word, taken} == {"I", "we"} else Pronoun(word=word)
        people = closed.titled() if domain.letter in "pn" else closed.people()
        person = Named(person=rng.choice(people))
        return None if person == subject else person
    found = nouns_of(domain.letter, tags)
    if not found:
        return None
    chosen = rng.choice(found)
    if isinstance(subject, Phrase) and subject.noun == chosen:
        return None
    return draw_phrase(rng, chosen, own=_own(subject), plain=not tall)


def _own(subject: Nominal | None) -> str:
    """Return the possessive that refers to the subject, where it has a clear one."""
    if isinstance(subject, Pronoun):
        return _OWN.get(subject.word, "")
    if isinstance(subject, Named):
        return "his" if subject.person.gender == "m" else "her"
    return ""


def draw_phrase(rng: Random, chosen: Noun, *, subject: bool = False, own: str = "", plain: bool = False) -> Phrase:
    """Return a noun phrase around the noun: determiner, number, and sometimes an adjective or a genitive."""
    if chosen.tags & {"kin"}:
        number: Number = "pl" if chosen.en_plural and rng.random() < 0.15 else "sg"
        return Phrase(noun=chosen, number=number, determiner=own or rng.choice(["my", "his", "her", "your", "our"]))
    if "property" in chosen.tags:
        owned = rng.choice(nouns_of("k", frozenset(("learner", "output", "data"))))
        return Phrase(noun=chosen, owner=Phrase(noun=owned, determiner=rng.choice(["the", "this", "our"])))
    adjective = None
    if not plain and rng.random() < 0.28:
        fitting = [word for word in adjectives() if word.attributive and word.tags & chosen.tags]
        adjective = rng.choice(fitting) if fitting else None
    if chosen.tags & {"detail"}:
        return Phrase(noun=chosen, determiner=own or rng.choice(["the", "my", "your"]))
    if chosen.en_plural and rng.random() < (0.3 if subject else 0.4):
        return _plural(rng, chosen, adjective, subject)
    weights = {
        "the": 6,
        "a": 1 if subject else 4,
        "this": 1,
        "my": 0 if own else 1,
        "every": 1 if subject else 0,
    }
    if chosen.tags & _NOBODYS or "person" in chosen.tags:
        weights, own = weights | {"my": 0}, ""
    if not chosen.en_plural:
        weights |= {"a": 0, "every": 0, "this": 0}
    if own and not plain:
        weights[own] = 4
    determiner = weighted(rng, weights)
    return Phrase(noun=chosen, determiner=determiner, adjective=adjective)


def _plural(rng: Random, chosen: Noun, adjective: Adjective | None, subject: bool) -> Phrase:
    kind = weighted(rng, {"count": 4, "the": 3, "many": 2, "some": 1, "this": 1, "": 0 if subject else 1})
    if kind == "count":
        count = rng.randint(2, 12) if rng.random() < 0.8 else rng.randint(13, 99)
        return Phrase(noun=chosen, number="pl", determiner="", count=count, adjective=adjective)
    return Phrase(noun=chosen, number="pl", determiner=kind, adjective=adjective)


# --- times and places


def draw_time(domain: Domain, rng: Random, tense: str) -> Time | None:
    """Return a time that goes with a tense or modal verb, or None."""
    wanted = {"past": "past", "future": "future", "present": "habit", "progressive": "now"}.get(tense)
    if tense == "perfect" or rng.random() < {"present": 0.5, "progressive": 0.7}.get(tense, 0.3):
        return None
    if domain.letter in "nk" and tense == "past" and rng.random() < 0.25:
        return rng.choice(closed.years()[-20 if domain.letter == "k" else 0 :])
    told = wanted in ("past", "future", "habit", None) and rng.random() < domain.clock_share
    found = _times(wanted, told, domain.letter == "k")
    return rng.choice(found) if found else None


@cache
def _times(wanted: str | None, told: bool, calm: bool) -> tuple[Time, ...]:
    """Return the times of a kind, with the hour where it is told; conference talks use but a few of them."""
    by_wish: dict[str | None, tuple[str, ...]] = {"past": ("past", "any"), "habit": ("habit",), "now": ("now",)}
    kinds = by_wish.get(wanted, ("future", "any"))
    few = ("today", "now", "last week", "last year", "next week", "next year")
    return tuple(t for t in closed.moments(clocks=told) if t.when in kinds and (not calm or t.en in few))


def draw_place(domain: Domain, rng: Random, tags: frozenset[str] = WHERE, *, cities: float = 0.3) -> Place | None:
    """Return a city with this probability, else a noun with one of the tags where something can be; None for none."""
    if rng.random() < cities:
        return Place(at=rng.choice(closed.CITIES))
    found = [noun for noun in nouns_of(domain.letter, tags) if noun.place]
    if not found:
        return None
    chosen = rng.choice(found)
    adjective = None
    if rng.random() < 0.2:
        fitting = [word for word in adjectives() if word.attributive and word.tags & chosen.tags]
        adjective = rng.choice(fitting) if fitting else None
    return Place(at=Phrase(noun=chosen, determiner=rng.choice(["the", "the", "the", "this"]), adjective=adjective))
