"""Random trees of the miniature's language: who does what in a domain.

A domain is a letter (the lexicon's columns name the words that it uses) and weights of sentence patterns. All
choices come from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from random import Random

from submission.miniature.language import closed, formulas
from submission.miniature.language.grammar import (
    Change,
    Clause,
    Copula,
    Existence,
    Formula,
    Joined,
    Named,
    Nominal,
    Phrase,
    Place,
    Pronoun,
    Quality,
    Reported,
    Subordinated,
    Tree,
)
from submission.miniature.language.nouns import adjectives, noun, nouns
from submission.miniature.language.verbs import reports, verb, verbs
from submission.miniature.language.words import Noun, Time, Verb

_OWN = {"I": "my", "he": "his", "she": "her", "we": "our", "you": "your", "they": "their"}
_LOCATABLE = frozenset(("buy", "eat", "drink", "read", "meet", "find", "lose", "wait", "sing", "help"))
_WHERE = frozenset(("indoor", "outdoor", "shop", "stop", "sight", "lodging", "public", "stage", "town"))
_NOBODYS = frozenset(("org", "public", "sight", "shop", "stop", "town", "show", "disaster", "contest", "amount", "policy"))
"""Tags of what is not said to be mine or yours."""
_TENSES = {"present": "p", "progressive": "g", "past": "a", "perfect": "f", "future": "u"}


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


def _frames() -> tuple[Time, ...]:
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
            frames=_frames(),
        ),
    )
}


def draw_tree(domain: Domain, rng: Random) -> Tree | None:
    """Return one random tree, or None where the draw led nowhere (the caller draws again)."""
    pattern = _weighted(rng, domain.patterns)
    return _PATTERNS[pattern](domain, rng)


def _weighted(rng: Random, weights: dict[str, int]) -> str:
    return rng.choices(list(weights), weights=list(weights.values()))[0]


# --- noun phrases


@cache
def _nouns(letter: str, tags: frozenset[str]) -> tuple[Noun, ...]:
    return tuple(noun for noun in nouns() if letter in noun.domains and noun.tags & tags)


def _subject(domain: Domain, rng: Random, tags: frozenset[str], *, you: bool = False) -> Nominal | None:
    kind = _weighted(rng, domain.subjects)
    human = "person" in tags or "scholar" in tags
    if human and kind == "pronoun":
        words = ["I", "we", "they"] if "scholar" in tags else ["I", "he", "she", "we", "they"]
        return Pronoun(word="you" if you and rng.random() < 0.6 else rng.choice(words))
    if "person" in tags and kind in ("name", "titled"):
        return Named(person=rng.choice(closed.people() if kind == "name" else closed.titled()))
    found = _nouns(domain.letter, tags)
    return _phrase(rng, rng.choice(found), subject=True) if found else None


def _object(
    domain: Domain, rng: Random, tags: frozenset[str], subject: Nominal | None, *, tall: bool = True
) -> Nominal | None:
    if "person" in tags and "person" in domain_tags(domain) and rng.random() < 0.5:
        if rng.random() < 0.6:
            word = rng.choice(["I", "he", "she", "we", "they", "you"])
            taken = subject.word if isinstance(subject, Pronoun) else "you" if subject is None else ""
            return None if word == taken or {word, taken} == {"I", "we"} else Pronoun(word=word)
        people = closed.titled() if domain.letter in "pn" else closed.people()
        person = Named(person=rng.choice(people))
        return None if person == subject else person
    found = _nouns(domain.letter, tags)
    if not found:
        return None
    chosen = rng.choice(found)
    if isinstance(subject, Phrase) and subject.noun == chosen:
        return None
    return _phrase(rng, chosen, own=_own(subject), plain=not tall)


def domain_tags(domain: Domain) -> frozenset[str]:
    """Return the tags of the domain's nouns."""
    return frozenset(tag for noun in nouns() if domain.letter in noun.domains for tag in noun.tags)


def _own(subject: Nominal | None) -> str:
    """Return the possessive that refers to the subject, where it has a clear one."""
    if isinstance(subject, Pronoun):
        return _OWN.get(subject.word, "")
    if isinstance(subject, Named):
        return "his" if subject.person.gender == "m" else "her"
    return ""


def _phrase(
    rng: Random, chosen: Noun, *, subject: bool = False, own: str = "", plain: bool = False
) -> Phrase:
    """Return a noun phrase around the noun: determiner, number, and sometimes an adjective or a genitive."""
    if chosen.tags & {"kin"}:
        number = "pl" if chosen.en_plural and rng.random() < 0.15 else "sg"
        return Phrase(
            noun=chosen, number=number, determiner=own or rng.choice(["my", "his", "her", "your", "our"])
        )
    if "property" in chosen.tags:
        owned = rng.choice(_nouns("k", frozenset(("learner", "output", "data"))))
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
    determiner = _weighted(rng, weights)
    return Phrase(noun=chosen, determiner=determiner, adjective=adjective)


def _plural(rng: Random, chosen: Noun, adjective: object, subject: bool) -> Phrase:
    kind = _weighted(rng, {"count": 4, "the": 3, "many": 2, "some": 1, "this": 1, "": 0 if subject else 1})
    if kind == "count":
        count = rng.randint(2, 12) if rng.random() < 0.8 else rng.randint(13, 99)
        return Phrase(noun=chosen, number="pl", determiner="", count=count, adjective=adjective)
    return Phrase(noun=chosen, number="pl", determiner=kind, adjective=adjective)


# --- times and places


def _time(domain: Domain, rng: Random, tense: str) -> Time | None:
    wanted = {"past": "past", "future": "future", "present": "habit", "progressive": "now"}.get(tense)
    if tense == "perfect" or rng.random() < {"present": 0.5, "progressive": 0.7}.get(tense, 0.3):
        return None
    if domain.letter in "nk" and tense == "past" and rng.random() < 0.25:
        return rng.choice(closed.years()[-20 if domain.letter == "k" else 0 :])
    if wanted in ("past", "future", "habit", None) and rng.random() < domain.clock_share:
        pool = closed.moments(clocks=True)
    else:
        pool = closed.moments(clocks=False)
    kinds = {"past": ("past", "any"), "future": ("future", "any"), "habit": ("habit",), "now": ("now",)}
    found = [time for time in pool if time.when in kinds.get(wanted, ("future", "any"))]
    if domain.letter == "k":
        found = [
            time
            for time in found
            if time.en in ("today", "now", "last week", "last year", "next week", "next year")
        ]
    return rng.choice(found) if found else None


def _place(
    domain: Domain, rng: Random, tags: frozenset[str] = _WHERE, *, cities: float = 0.3
) -> Place | None:
    if rng.random() < cities:
        return Place(at=rng.choice(closed.CITIES))
    found = [noun for noun in _nouns(domain.letter, tags) if noun.place]
    if not found:
        return None
    chosen = rng.choice(found)
    adjective = None
    if rng.random() < 0.2:
        fitting = [word for word in adjectives() if word.attributive and word.tags & chosen.tags]
        adjective = rng.choice(fitting) if fitting else None
    return Place(
        at=Phrase(noun=chosen, determiner=rng.choice(["the", "the", "the", "this"]), adjective=adjective)
    )


# --- clauses


def _clause(
    domain: Domain,
    rng: Random,
    *,
    tense: str = "",
    timed: bool = True,
    you: bool = False,
    short: bool = False,
) -> Clause | None:
    """Return a statement around a random verb of the domain."""
    tense = tense or _weighted(rng, domain.tenses)
    modal = tense if tense in ("can", "must", "should", "want") else ""
    use = "m" if modal else _TENSES[tense]
    found = [
        verb
        for verb in verbs()
        if domain.letter in verb.domains and use in verb.uses and verb.en[0] != "rain"
    ]
    if not found:
        return None
    chosen = rng.choice(found)
    subject = _subject(domain, rng, chosen.subjects, you=you)
    if subject is None or modal and not _sentient(subject) and modal in ("want", "can", "should"):
        return None
    clause = Clause(subject=subject, verb=chosen, tense="present" if modal else tense, modal=modal)
    clause = _with_frame(domain, rng, clause, plain=short)
    if clause is None:
        return None
    if tense == "perfect":
        return replace(clause, adverb=closed.ALREADY)
    return _modified(domain, rng, clause, timed=timed, short=short)


def _sentient(subject: Nominal) -> bool:
    return not isinstance(subject, Phrase) or bool(subject.noun.tags & {"person", "org", "public"})


def _with_frame(domain: Domain, rng: Random, clause: Clause, *, plain: bool) -> Clause | None:
    """Return the clause with what its verb asks for."""
    chosen = clause.verb
    if chosen.objects:
        owner = None if chosen.en[0] == "steal" else clause.subject
        clause = replace(clause, object=_object(domain, rng, chosen.objects, owner, tall=not plain))
        if clause.object is None:
            return None
    if chosen.seconds:
        second = _object(domain, rng, chosen.seconds, clause.subject, tall=False)
        if second is None or second == clause.object or isinstance(second, Phrase) and second.count > 12:
            return None
        if (
            isinstance(clause.object, Phrase)
            and isinstance(second, Phrase)
            and clause.object.noun == second.noun
        ):
            return None
        clause = replace(clause, second=second)
    if "t" in chosen.uses:
        cities = 0.0 if chosen.en[0] == "go" else 1.0
        clause = replace(clause, goal=_place(domain, rng, cities=cities))
        if chosen.en[0] == "travel" and rng.random() < 0.6:
            clause = replace(clause, vehicle=rng.choice(list(closed.VEHICLES)))
        return clause if clause.goal else None
    if chosen.en[0] == "live":
        clause = replace(clause, place=_place(domain, rng, frozenset(("house", "city", "hotel")), cities=0.6))
        return clause if clause.place else None
    return clause


def _modified(domain: Domain, rng: Random, clause: Clause, *, timed: bool, short: bool) -> Clause | None:
    """Return the clause with a time, an adverb, a place or a negation, as far as they go together."""
    chosen = clause.verb
    stative = "a" not in chosen.uses
    tense = clause.modal or clause.tense
    if not short and rng.random() < 0.12 and _negatable(clause):
        clause = replace(clause, negative=True)
    if timed and not stative:
        time = _time(domain, rng, tense)
        if (
            isinstance(clause.subject, Phrase)
            and clause.subject.determiner == "every"
            and time
            and time.when == "habit"
        ):
            time = None
        clause = replace(clause, time=time, front=bool(time) and not clause.negative and rng.random() < 0.35)
    if (
        clause.tense == "present"
        and not clause.modal
        and not stative
        and not clause.time
        and not clause.negative
    ):
        if rng.random() < 0.6 and domain.letter != "k":
            clause = replace(clause, adverb=rng.choice(closed.ALWAYS))
    locatable = (
        "l" in chosen.uses and chosen.en[0] != "live" or chosen.en[0] in _LOCATABLE and domain.letter in "dtn"
    )
    if (
        locatable
        and not clause.negative
        and rng.random() < (0.5 if "l" in chosen.uses else 0.25)
        and not short
    ):
        tags = frozenset(("work",)) if chosen.en[0] == "work" else _WHERE
        if chosen.en[0] == "arrive":
            tags = frozenset(("stop", "lodging"))
        if chosen.en[0] in ("sleep",):
            tags = frozenset(("garden", "kitchen", "hotel", "park"))
        clause = replace(clause, place=_place(domain, rng, tags))
    return clause


def _negatable(clause: Clause) -> bool:
    if (
        clause.modal == "must"
        or clause.tense in ("progressive", "perfect")
        or clause.goal
        and clause.modal == ""
    ):
        return False
    value = clause.object
    if isinstance(value, Phrase) and (value.count or value.determiner in ("many", "some", "every")):
        return False
    if isinstance(clause.subject, Phrase) and clause.subject.determiner in ("every", "some", "many", "a"):
        return False
    if (
        clause.verb.zh in ("买*O", "卖*O", "找到*O", "丢*O", "到*P")
        and clause.tense == "present"
        and not clause.modal
    ):
        return False
    return (
        clause.tense != "present" or bool(clause.modal) or "n" in clause.verb.uses or "l" in clause.verb.uses
    )


def _statement(domain: Domain, rng: Random) -> Tree | None:
    return _clause(domain, rng)


def _polar(domain: Domain, rng: Random) -> Tree | None:
    tense = rng.choice(["present", "past", "future", "can", "want", "perfect", "past"])
    clause = _clause(domain, rng, tense=tense, you=True)
    if clause is None or clause.negative or tense == "perfect":
        return None
    if isinstance(clause.subject, Phrase) and clause.subject.determiner not in (
        "the",
        "this",
        "my",
        "your",
        "his",
        "her",
        "our",
    ):
        return None
    return replace(clause, question="polar", front=False, adverb=None)


def _asked(domain: Domain, rng: Random) -> Tree | None:
    question = rng.choice(["who", "what", "what", "when", "where", "why", "how many"])
    tense = rng.choice(
        ["present", "future", "can", "must"]
        if question in ("when", "where")
        else ["past", "past", "present", "future", "want"]
    )
    clause = _clause(domain, rng, tense=tense, you=True, short=True)
    if (
        clause is None
        or isinstance(clause.subject, Phrase)
        and clause.subject.determiner not in ("the", "this", "my", "your", "his", "her")
    ):
        return None
    clause = replace(clause, question=question, front=False, adverb=None, negative=False)
    stative = "a" not in clause.verb.uses
    match question:
        case "who":
            fits = "person" in clause.verb.subjects and isinstance(clause.subject, Pronoun | Named)
            return replace(clause, subject=Pronoun(word="he")) if fits and _own_free(clause) else None
        case "what":
            fits = (
                isinstance(clause.object, Phrase)
                and "person" not in clause.object.noun.tags
                and clause.verb.zh.count("O") == 1
            )
            return replace(clause, object=Phrase(noun=noun("book"))) if fits else None
        case "how many":
            fits = (
                isinstance(clause.object, Phrase)
                and clause.object.noun.en_plural
                and not clause.object.noun.tags & {"kin", "property"}
            )
            fits = (
                fits
                and clause.verb.zh.startswith(clause.verb.zh.rstrip("O").rstrip("*"))
                and not clause.verb.en_preposition
            )
            fits = fits and " of " not in clause.object.noun.en and not clause.second
            return clause if fits else None
        case "when":
            return None if stative or clause.verb.en[0] in ("live", "need") else replace(clause, time=None)
        case "where":
            fits = (
                clause.verb.en[0] in _LOCATABLE | {"go", "travel", "fly", "work", "live"}
                and domain.letter in "dtnpv"
            )
            fits = fits and clause.verb.en[0] not in ("find", "lose", "help") and not clause.vehicle
            return replace(clause, place=None, goal=None) if fits else None
    return clause if "r" not in clause.verb.uses else None


def _own_free(clause: Clause) -> bool:
    """Return whether the object still makes sense when the subject is only asked for."""
    return not (isinstance(clause.object, Phrase) and clause.object.determiner in ("his", "her", "their"))


def _imperative(domain: Domain, rng: Random) -> Tree | None:
    found = [verb for verb in verbs() if domain.letter in verb.domains and "i" in verb.uses]
    chosen = rng.choice(found)
    clause = Clause(subject=None, verb=chosen, imperative=True)
    clause = _with_frame(domain, rng, clause, plain=False)
    if (
        clause is None
        or isinstance(clause.object, Phrase)
        and clause.object.determiner in ("a", "some", "many", "")
    ):
        return None
    negative = rng.random() < 0.15 and not (isinstance(clause.object, Phrase) and clause.object.count)
    time = (
        _time(domain, rng, "future")
        if chosen.en[0] in ("call", "confirm", "cancel") and not negative
        else None
    )
    return replace(clause, negative=negative, time=time)


def _copula(domain: Domain, rng: Random, *, than: bool = False) -> Copula | None:
    found = [
        a
        for a in adjectives()
        if domain.letter in a.domains and a.zh_predicate and (a.en_comparative or not than)
    ]
    adjective = rng.choice(found)
    pool = _nouns(domain.letter, adjective.tags)
    if not pool:
        return None
    if "person" in adjective.tags and rng.random() < 0.7:
        subject = _subject(domain, rng, frozenset(("person",)))
    else:
        subject = replace(_phrase(rng, rng.choice(pool), subject=True), adjective=None)
    if isinstance(subject, Phrase) and (subject.determiner in ("a", "some") or subject.noun.tags & {"drink"}):
        return None
    if than:
        other = rng.choice(pool)
        if (
            not isinstance(subject, Phrase)
            or subject.count
            or subject.determiner in ("many", "every")
            or other == subject.noun
        ):
            return None
        if not subject.noun.tags & other.tags - {"thing", "goods"}:
            return None
        compared = Phrase(noun=other, determiner="the", number=subject.number if other.en_plural else "sg")
        return Copula(subject=subject, complement=Quality(adjective=adjective, than=compared))
    degree = _weighted(
        rng,
        {
            "": 5,
            "very": 3,
            "too": 0 if "person" in adjective.tags or adjective.en in ("good", "beautiful") else 2,
        },
    )
    return Copula(subject=subject, complement=Quality(adjective=adjective, degree=degree))


def _quality(domain: Domain, rng: Random) -> Tree | None:
    clause = _copula(domain, rng)
    if clause is None:
        return None
    tense = rng.choice(["present", "present", "past"])
    quantified = isinstance(clause.subject, Phrase) and (
        clause.subject.count or clause.subject.determiner in ("every", "many")
    )
    if clause.complement.degree != "" or quantified:
        return replace(clause, tense=tense)
    kind = rng.choice(["plain", "negative", "polar"])
    return replace(
        clause, tense=tense, negative=kind == "negative", question="polar" if kind == "polar" else ""
    )


def _comparison(domain: Domain, rng: Random) -> Tree | None:
    return _copula(domain, rng, than=True)


def _existence(domain: Domain, rng: Random) -> Tree | None:
    where = _place(
        domain,
        rng,
        frozenset(("kitchen", "garden", "table", "park", "room", "hotel", "bag", "city", "office", "house")),
        cities=0.1,
    )
    tags = {
        "kitchen": "furniture snack cake",
        "garden": "animal furniture person",
        "table": "paper snack text drink small",
    }
    tags |= {
        "park": "person animal outdoor",
        "room": "furniture",
        "hotel": "lodging guest",
        "bag": "small paper text",
        "office": "text paper",
    }
    tags |= {"city": "sight public", "house": "person animal dear"}
    if where is None:
        return None
    key = where.at.noun.en if isinstance(where.at, Phrase) else "city"
    found = [
        noun
        for noun in _nouns(domain.letter, frozenset(tags[key].split()))
        if not noun.tags & {"kin", key, "bag", "suitcase"} and noun.en != "city"
    ]
    if not found:
        return None
    what = _phrase(rng, rng.choice(found), plain=rng.random() < 0.5)
    if not (what.count or what.determiner in ("a", "many", "some")):
        what = replace(what, determiner="a") if what.number == "sg" and what.noun.en_plural else None
    if what is None:
        return None
    return Existence(
        what=what, place=where, question="polar" if what.determiner == "a" and rng.random() < 0.3 else ""
    )


def _located(domain: Domain, rng: Random) -> Tree | None:
    asked = rng.random() < 0.35
    if rng.random() < 0.5:
        subject = _subject(domain, rng, frozenset(("person",)))
        where = _place(domain, rng)
    else:
        found = _nouns(domain.letter, frozenset(("small", "paper", "picture", "text")))
        subject = _phrase(rng, rng.choice(found), subject=True, plain=True)
        where = _place(domain, rng, frozenset(("table", "bag", "suitcase", "kitchen", "room")), cities=0.0)
    if (
        subject is None
        or where is None
        or isinstance(subject, Phrase)
        and subject.determiner in ("a", "many", "some", "every", "this")
    ):
        return None
    if isinstance(where.at, Phrase) and isinstance(subject, Phrase) and where.at.noun == subject.noun:
        return None
    if asked and not (isinstance(subject, Phrase) and subject.count):
        return Copula(subject=subject, complement=Place(at=None), question="where")
    return Copula(
        subject=subject,
        complement=where,
        tense=rng.choice(["present", "past"]),
        question=rng.choice(["", "", "polar"]),
    )


def _weather(rng: Random, tense: str) -> Clause:
    return Clause(subject=Pronoun(word="it"), verb=verb("rain"), tense=tense)


def _side(domain: Domain, rng: Random, tense: str = "") -> Clause | Copula | None:
    """Return a short clause to join with another."""
    if rng.random() < 0.35:
        clause = _copula(domain, rng)
        past = tense == "past" or not tense and rng.random() < 0.4
        return replace(clause, tense="past" if past else "present") if clause else None
    clause = _clause(domain, rng, tense=tense, timed=rng.random() < 0.3, short=True)
    return (
        replace(clause, front=False, place=None if clause.verb.en[0] != "live" else clause.place)
        if clause
        else None
    )


def _pair(
    domain: Domain, rng: Random, tenses: tuple[str, str]
) -> tuple[Clause | Copula, Clause | Copula] | None:
    first, second = _side(domain, rng, tenses[0]), _side(domain, rng, tenses[1])
    if first is None or second is None:
        return None
    same = isinstance(first, Clause) and isinstance(second, Clause) and first.verb == second.verb
    return None if same else (first, second)


def _joined(domain: Domain, rng: Random) -> Tree | None:
    tense = rng.choice(["past", "present", ""])
    pair = _pair(domain, rng, (tense, tense))
    return Joined(first=pair[0], conjunction=rng.choice(["and", "but"]), second=pair[1]) if pair else None


def _because(domain: Domain, rng: Random) -> Tree | None:
    tense = rng.choice(["past", "present", "future", "can", "must", "want"])
    reason = "past" if tense == "past" else rng.choice(["present", "want", "must", "present"])
    if domain.letter in "dt" and rng.random() < 0.12:
        main = _side(domain, rng, tense)
        weather = _weather(rng, {"past": "past"}.get(tense, "progressive"))
        return Subordinated(main=main, conjunction="because", condition=weather) if main else None
    pair = _pair(domain, rng, (tense, reason))
    return Subordinated(main=pair[0], conjunction="because", condition=pair[1]) if pair else None


def _condition(domain: Domain, rng: Random) -> Tree | None:
    conjunction = rng.choice(["if", "if", "when"])
    pair = _pair(domain, rng, (rng.choice(["future", "can", "must", "should"]), "present"))
    if domain.letter in "dt" and rng.random() < 0.15:
        main = _side(domain, rng, "future")
        return (
            Subordinated(main=main, conjunction=conjunction, condition=_weather(rng, "present"))
            if main
            else None
        )
    if pair is None or isinstance(pair[0], Copula):
        return None
    main, condition = pair
    main = replace(main, time=None)
    condition = replace(condition, time=None, **({"adverb": None} if isinstance(condition, Clause) else {}))
    return Subordinated(main=main, conjunction=conjunction, condition=condition)


def _reported(domain: Domain, rng: Random) -> Tree | None:
    found = [(chosen, past) for chosen, past in reports() if domain.letter in chosen.domains]
    chosen, past = rng.choice(found)
    subject = _subject(domain, rng, chosen.subjects)
    if chosen.en[0] == "hope":
        content = _side(domain, rng, "future")
    elif chosen.en[0] == "announce":
        content = _change(domain, rng) if rng.random() < 0.4 else _side(domain, rng, "future")
        content = (
            replace(content, tense="future", time=None)
            if isinstance(content, Copula) and isinstance(content.complement, Change)
            else content
        )
    else:
        content = _side(domain, rng)
    if (
        subject is None
        or content is None
        or isinstance(subject, Phrase)
        and subject.determiner in ("a", "every")
    ):
        return None
    if chosen.en[0] in ("hope", "announce") and isinstance(content, Copula) and content.tense != "future":
        return None
    past = past and (chosen.en[1] == "-" or rng.random() < 0.8)
    return Reported(subject=subject, verb=chosen, tense="past" if past else "present", content=content)


def _relative(domain: Domain, rng: Random) -> Tree | None:
    inner = _clause(domain, rng, tense=rng.choice(["present", "past"]), timed=False, short=True)
    outer = _clause(
        domain, rng, tense=rng.choice(["past", "present", "future", "want"]), timed=False, short=True
    )
    if inner is None or outer is None or inner.verb == outer.verb or inner.negative or outer.negative:
        return None
    if not isinstance(inner.subject, Phrase) or inner.subject.noun.tags & {"kin"} or inner.subject.count:
        return None
    if not outer.verb.subjects & inner.subject.noun.tags and not outer.verb.objects & inner.subject.noun.tags:
        return None
    head = Phrase(
        noun=inner.subject.noun,
        number=inner.subject.number,
        relative=replace(inner, subject=None, adverb=None),
    )
    if outer.verb.subjects & inner.subject.noun.tags:
        return replace(outer, subject=head, adverb=None) if _own_free(outer) else None
    return replace(outer, object=head, adverb=None)


def _passive(domain: Domain, rng: Random) -> Tree | None:
    found = [verb for verb in verbs() if domain.letter in verb.domains and "b" in verb.uses]
    if not found:
        return None
    chosen = rng.choice(found)
    things = _nouns(domain.letter, chosen.objects - {"person"})
    subject = _phrase(rng, rng.choice(things), subject=True)
    if subject.determiner in ("a", "every"):
        return None
    time = _time(domain, rng, "past")
    return Clause(
        subject=subject,
        verb=chosen,
        tense="past",
        passive=True,
        time=time,
        front=bool(time) and rng.random() < 0.35,
    )


def _change(domain: Domain, rng: Random) -> Copula:
    subject = Phrase(noun=noun("price"), number=rng.choice(["pl", "pl", "sg"]))
    if rng.random() < 0.6:
        subject = replace(subject, owner=_owned_good(rng))
    tense = rng.choice(["past", "future"])
    time = _time(domain, rng, tense)
    change = Change(up=rng.random() < 0.6, percent=rng.randint(2, 60))
    return Copula(
        subject=subject, complement=change, tense=tense, time=time, front=bool(time) and rng.random() < 0.4
    )


def _owned_good(rng: Random) -> Phrase:
    return Phrase(noun=noun(rng.choice(["car", "house"])), number="pl")


def _purpose(domain: Domain, rng: Random) -> Tree | None:
    clause = _clause(domain, rng, tense=rng.choice(["present", "past", "can"]), timed=False)
    if clause is None or clause.verb.en[0] not in ("use", "train", "collect", "compress") or clause.negative:
        return None
    goal = rng.choice(
        [
            verb
            for verb in verbs()
            if verb.en[0] in ("improve", "compress", "translate", "select", "measure", "remove", "answer")
        ]
    )
    if "k" not in goal.domains:
        return None
    target = _object(domain, rng, goal.objects, None)
    if (
        target is None
        or isinstance(target, Phrase)
        and isinstance(clause.object, Phrase)
        and target.noun == clause.object.noun
    ):
        return None
    return replace(clause, purpose=Clause(subject=None, verb=goal, object=target))


def _framed(domain: Domain, rng: Random) -> Tree | None:
    frame = rng.choice(domain.frames)
    tense = rng.choice(["present", "past", "present", "can"])
    clause = _clause(domain, rng, tense=tense, timed=False)
    if clause is None or clause.negative:
        return None
    return replace(clause, time=frame, front=True)


def _formula(domain: Domain, rng: Random) -> Tree | None:
    pattern = rng.choice([pattern for pattern in formulas.patterns() if domain.letter in pattern.domains])
    slots = []
    for name, kind in pattern.places:
        value = filler(domain, rng, kind)
        if value is None:
            return None
        slots.append((name, value))
    return Formula(en=pattern.en, de=pattern.de, zh=pattern.zh, slots=tuple(slots))


def filler(domain: Domain, rng: Random, kind: str) -> object:
    """Return what fills an open place of a formula: a nominal, place, time, city, or (en, de, zh) texts."""
    if kind.startswith("np:"):
        found = _nouns(domain.letter, frozenset(kind[3:].split(",")))
        phrase = _phrase(rng, rng.choice(found))
        singular = phrase.number == "sg" and phrase.determiner not in ("every", "a")
        return phrase if singular else replace(phrase, number="sg", determiner="the", count=0)
    match kind:
        case "name":
            return Named(person=rng.choice(closed.people()))
        case "titled":
            return Named(person=rng.choice(closed.titled()))
        case "fullname":
            first, last = rng.choice(closed.people()), rng.choice(closed.titled())
            surname, zh = last.en.split(" ")[1], last.zh[:-2]
            return (f"{first.en} {surname}", f"{first.de} {surname}", f"{first.zh}·{zh}")
        case "clock":
            return rng.choice(
                [time for time in closed.moments(clocks=True) if time.when in ("future", "any")]
            )
        case "hour":
            return rng.choice(closed.hours())
        case "time":
            hour = rng.choice(closed.hours())
            return (hour.en.removeprefix("at "), hour.de.removeprefix("um "), hour.zh)
        case "place":
            return _place(domain, rng, cities=0.0)
        case "city":
            return rng.choice(closed.CITIES)
        case "thisstorm":
            return Phrase(noun=noun("storm"), determiner=rng.choice(["this", "the"]))
    return _number(rng, kind)


def _number(rng: Random, kind: str) -> tuple[str, str, str]:
    if kind == "phone":
        digits = f"{rng.randint(100, 999)}-{rng.randint(100, 999)}"
        return digits, digits, digits
    if kind == "millions":
        value = rng.randint(2, 99)
        return closed.english_number(value), closed.german_number(value), f"{value}00万"
    low, high = {
        "price": (13, 250),
        "number": (2, 60),
        "large": (100, 900),
        "digits": (13, 98),
        "figure": (2, 9),
    }[kind]
    value = rng.randint(low, high)
    if kind == "large":
        value = value // 100 * 100
    if kind == "figure":
        return str(value), str(value), str(value)
    return closed.english_number(value), closed.german_number(value), closed.chinese_number(value)


_PATTERNS: dict[str, Callable[[Domain, Random], Tree | None]] = {
    "statement": _statement,
    "polar": _polar,
    "asked": _asked,
    "imperative": _imperative,
    "quality": _quality,
    "comparison": _comparison,
    "existence": _existence,
    "located": _located,
    "joined": _joined,
    "because": _because,
    "condition": _condition,
    "reported": _reported,
    "relative": _relative,
    "passive": _passive,
    "change": _change,
    "purpose": _purpose,
    "framed": _framed,
    "formula": _formula,
}
