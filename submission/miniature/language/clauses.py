"""Random clauses of a domain: who does what, when and where, and what is how."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from random import Random

from submission.miniature.language import closed
from submission.miniature.language.domains import Domain
from submission.miniature.language.grammar import (
    Clause,
    Copula,
    Degree,
    Modal,
    Nominal,
    Phrase,
    Pronoun,
    Quality,
    Tense,
)
from submission.miniature.language.nouns import adjectives
from submission.miniature.language.phrases import (
    WHERE,
    draw_object,
    draw_phrase,
    draw_place,
    draw_subject,
    draw_time,
    nouns_of,
    weighted,
)
from submission.miniature.language.verbs import verb, verbs
from submission.miniature.language.words import Verb

LOCATABLE = frozenset(("buy", "eat", "drink", "read", "meet", "find", "lose", "wait", "sing", "help"))
_TENSES: dict[str, tuple[Tense, str]] = {
    "present": ("present", "p"),
    "progressive": ("progressive", "g"),
    "past": ("past", "a"),
    "perfect": ("perfect", "f"),
    "future": ("future", "u"),
}
"""By the name that a domain's table gives: the tense, and its letter among the uses of a verb."""
_WITH_MODAL: tuple[Tense, str] = ("present", "m")
_MODALS: dict[str, Modal] = {"can": "can", "must": "must", "should": "should", "want": "want"}


def draw_clause(
    domain: Domain,
    rng: Random,
    *,
    tense: str = "",
    timed: bool = True,
    you: bool = False,
    short: bool = False,
) -> Clause | None:
    """Return a statement around a random verb of the domain."""
    tense = tense or weighted(rng, domain.tenses)
    modal = _MODALS.get(tense, "")
    clause_tense, use = _WITH_MODAL if modal else _TENSES[tense]
    found = _verbs(domain.letter, use)
    if not found:
        return None
    chosen = rng.choice(found)
    subject = draw_subject(domain, rng, chosen.subjects, you=you)
    if subject is None or modal and not _sentient(subject) and modal in ("want", "can", "should"):
        return None
    bare = Clause(subject=subject, verb=chosen, tense=clause_tense, modal=modal)
    clause = with_complements(domain, rng, bare, plain=short)
    if clause is None:
        return None
    if tense == "perfect":
        return replace(clause, adverb=closed.ALREADY)
    return _modified(domain, rng, clause, timed=timed, short=short)


@cache
def _verbs(letter: str, use: str) -> tuple[Verb, ...]:
    return tuple(v for v in verbs() if letter in v.domains and use in v.uses and v.en[0] != "rain")


def _sentient(subject: Nominal) -> bool:
    return not isinstance(subject, Phrase) or bool(subject.noun.tags & {"person", "org", "public"})


def with_complements(domain: Domain, rng: Random, clause: Clause, *, plain: bool) -> Clause | None:
    """Return the clause with what its verb asks for."""
    chosen = clause.verb
    if chosen.objects:
        owner = None if chosen.en[0] == "steal" else clause.subject
        clause = replace(clause, object=draw_object(domain, rng, chosen.objects, owner, tall=not plain))
        if clause.object is None:
            return None
    if chosen.seconds:
        second = draw_object(domain, rng, chosen.seconds, clause.subject, tall=False)
        if second is None or second == clause.object or isinstance(second, Phrase) and second.count > 12:
            return None
        if isinstance(clause.object, Phrase) and isinstance(second, Phrase) and clause.object.noun == second.noun:
            return None
        clause = replace(clause, second=second)
    if "t" in chosen.uses:
        cities = 0.0 if chosen.en[0] == "go" else 1.0
        clause = replace(clause, goal=draw_place(domain, rng, cities=cities))
        if chosen.en[0] == "travel" and rng.random() < 0.6:
            clause = replace(clause, vehicle=rng.choice(list(closed.VEHICLES)))
        return clause if clause.goal else None
    if chosen.en[0] == "live":
        clause = replace(clause, place=draw_place(domain, rng, frozenset(("house", "city", "hotel")), cities=0.6))
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
        time = draw_time(domain, rng, tense)
        if (
            isinstance(clause.subject, Phrase)
            and clause.subject.determiner == "every"
            and time
            and time.when == "habit"
        ):
            time = None
        clause = replace(clause, time=time, front=bool(time) and not clause.negative and rng.random() < 0.35)
    habitual = clause.tense == "present" and not (clause.modal or stative or clause.time or clause.negative)
    if habitual and rng.random() < 0.6 and domain.letter != "k":
        clause = replace(clause, adverb=rng.choice(closed.ALWAYS))
    locatable = "l" in chosen.uses and chosen.en[0] != "live" or chosen.en[0] in LOCATABLE and domain.letter in "dtn"
    if locatable and not clause.negative and rng.random() < (0.5 if "l" in chosen.uses else 0.25) and not short:
        tags = frozenset(("work",)) if chosen.en[0] == "work" else WHERE
        if chosen.en[0] == "arrive":
            tags = frozenset(("stop", "lodging"))
        if chosen.en[0] in ("sleep",):
            tags = frozenset(("garden", "kitchen", "hotel", "park"))
        clause = replace(clause, place=draw_place(domain, rng, tags))
    return clause


def _negatable(clause: Clause) -> bool:
    if clause.modal == "must" or clause.tense in ("progressive", "perfect") or clause.goal and clause.modal == "":
        return False
    value = clause.object
    if isinstance(value, Phrase) and (value.count or value.determiner in ("many", "some", "every")):
        return False
    if isinstance(clause.subject, Phrase) and clause.subject.determiner in ("every", "some", "many", "a"):
        return False
    if clause.verb.zh in ("买*O", "卖*O", "找到*O", "丢*O", "到*P") and clause.tense == "present" and not clause.modal:
        return False
    return clause.tense != "present" or bool(clause.modal) or "n" in clause.verb.uses or "l" in clause.verb.uses


def draw_copula(domain: Domain, rng: Random, *, than: bool = False) -> Copula | None:
    """Return a statement that something has a quality; than: a comparison. None where the draw gives none."""
    found = [
        a for a in adjectives() if domain.letter in a.domains and a.zh_predicate and (a.en_comparative or not than)
    ]
    adjective = rng.choice(found)
    pool = nouns_of(domain.letter, adjective.tags)
    if not pool:
        return None
    subject: Nominal | None
    if "person" in adjective.tags and rng.random() < 0.7:
        subject = draw_subject(domain, rng, frozenset(("person",)))
    else:
        subject = replace(draw_phrase(rng, rng.choice(pool), subject=True), adjective=None)
    if subject is None:
        return None
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
    degree: Degree = weighted(
        rng,
        {
            "": 5,
            "very": 3,
            "too": 0 if "person" in adjective.tags or adjective.en in ("good", "beautiful") else 2,
        },
    )
    return Copula(subject=subject, complement=Quality(adjective=adjective, degree=degree))


def weather(rng: Random, tense: Tense) -> Clause:
    """Return `it rains` in a tense."""
    return Clause(subject=Pronoun(word="it"), verb=verb("rain"), tense=tense)


def draw_side(domain: Domain, rng: Random, tense: str = "") -> Clause | Copula | None:
    """Return a short clause to join with another."""
    if rng.random() < 0.35:
        copula = draw_copula(domain, rng)
        past = tense == "past" or not tense and rng.random() < 0.4
        return replace(copula, tense="past" if past else "present") if copula else None
    clause = draw_clause(domain, rng, tense=tense, timed=rng.random() < 0.3, short=True)
    return replace(clause, front=False, place=None if clause.verb.en[0] != "live" else clause.place) if clause else None


def draw_pair(domain: Domain, rng: Random, tenses: tuple[str, str]) -> tuple[Clause | Copula, Clause | Copula] | None:
    """Return two short clauses in these tenses with different verbs; None where the draw gives none."""
    first, second = draw_side(domain, rng, tenses[0]), draw_side(domain, rng, tenses[1])
    if first is None or second is None:
        return None
    same = isinstance(first, Clause) and isinstance(second, Clause) and first.verb == second.verb
    return None if same else (first, second)
