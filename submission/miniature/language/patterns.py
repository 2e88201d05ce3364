"""Random sentences of a domain: one function per sentence pattern, each returning a tree or nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Literal

from submission.miniature.language.clauses import (
    LOCATABLE,
    draw_clause,
    draw_copula,
    draw_pair,
    draw_side,
    weather,
    with_complements,
)
from submission.miniature.language.domains import Domain
from submission.miniature.language.fillers import draw_formula
from submission.miniature.language.grammar import (
    Change,
    Clause,
    Copula,
    CopulaTense,
    Existence,
    Joined,
    Named,
    Phrase,
    Place,
    Pronoun,
    Quality,
    Question,
    Reported,
    Subordinated,
    Tree,
)
from submission.miniature.language.nouns import noun
from submission.miniature.language.phrases import (
    draw_object,
    draw_phrase,
    draw_place,
    draw_subject,
    draw_time,
    nouns_of,
    weighted,
)
from submission.miniature.language.verbs import reports, verbs

_ASKED_WHERE = (LOCATABLE | {"go", "travel", "fly", "work", "live"}) - {"find", "lose", "help"}


def draw_tree(domain: Domain, rng: Random) -> Tree | None:
    """Return one random tree, or None where the draw led nowhere (the caller draws again)."""
    pattern = weighted(rng, domain.patterns)
    return _PATTERNS[pattern](domain, rng)


def _statement(domain: Domain, rng: Random) -> Tree | None:
    return draw_clause(domain, rng)


def _polar(domain: Domain, rng: Random) -> Tree | None:
    tense = rng.choice(["present", "past", "future", "can", "want", "perfect", "past"])
    clause = draw_clause(domain, rng, tense=tense, you=True)
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
    question: Question = rng.choice(["who", "what", "what", "when", "where", "why", "how many"])
    tense = rng.choice(
        ["present", "future", "can", "must"]
        if question in ("when", "where")
        else ["past", "past", "present", "future", "want"]
    )
    clause = draw_clause(domain, rng, tense=tense, you=True, short=True)
    if (
        clause is None
        or isinstance(clause.subject, Phrase)
        and clause.subject.determiner not in ("the", "this", "my", "your", "his", "her")
    ):
        return None
    clause = replace(clause, question=question, front=False, adverb=None, negative=False)
    match question:
        case "who":
            fits = "person" in clause.verb.subjects and isinstance(clause.subject, Pronoun | Named)
            return replace(clause, subject=Pronoun(word="he")) if fits and _own_free(clause) else None
        case "what":
            fits = isinstance(clause.object, Phrase) and "person" not in clause.object.noun.tags
            return (
                replace(clause, object=Phrase(noun=noun("book"))) if fits and clause.verb.zh.count("O") == 1 else None
            )
        case "how many":
            return clause if _countable(clause) else None
        case "when":
            return replace(clause, time=None) if "a" in clause.verb.uses else None
        case "where":
            fits = clause.verb.en[0] in _ASKED_WHERE and domain.letter != "k" and not clause.vehicle
            return replace(clause, place=None, goal=None) if fits else None
    return clause


def _countable(clause: Clause) -> bool:
    """Return whether one can ask how many things the clause's object is."""
    value = clause.object
    if not isinstance(value, Phrase) or clause.second or clause.verb.en_preposition:
        return False
    return bool(value.noun.en_plural) and " of " not in value.noun.en and not value.noun.tags & {"kin", "property"}


def _own_free(clause: Clause) -> bool:
    """Return whether the object still makes sense when the subject is only asked for."""
    return not (isinstance(clause.object, Phrase) and clause.object.determiner in ("his", "her", "their"))


def _imperative(domain: Domain, rng: Random) -> Tree | None:
    found = [verb for verb in verbs() if domain.letter in verb.domains and "i" in verb.uses]
    chosen = rng.choice(found)
    bare = Clause(subject=None, verb=chosen, imperative=True)
    clause = with_complements(domain, rng, bare, plain=False)
    if clause is None or isinstance(clause.object, Phrase) and clause.object.determiner in ("a", "some", "many", ""):
        return None
    negative = rng.random() < 0.15 and not (isinstance(clause.object, Phrase) and clause.object.count)
    time = draw_time(domain, rng, "future") if chosen.en[0] in ("call", "confirm", "cancel") and not negative else None
    return replace(clause, negative=negative, time=time)


def _quality(domain: Domain, rng: Random) -> Tree | None:
    clause = draw_copula(domain, rng)
    if clause is None:
        return None
    tense: CopulaTense = rng.choice(["present", "present", "past"])
    quantified = isinstance(clause.subject, Phrase) and (
        clause.subject.count or clause.subject.determiner in ("every", "many")
    )
    assert isinstance(clause.complement, Quality)  # what draw_copula gives
    if clause.complement.degree != "" or quantified:
        return replace(clause, tense=tense)
    kind = rng.choice(["plain", "negative", "polar"])
    return replace(clause, tense=tense, negative=kind == "negative", question="polar" if kind == "polar" else "")


def _comparison(domain: Domain, rng: Random) -> Tree | None:
    return draw_copula(domain, rng, than=True)


def _existence(domain: Domain, rng: Random) -> Tree | None:
    where = draw_place(
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
        for noun in nouns_of(domain.letter, frozenset(tags[key].split()))
        if not noun.tags & {"kin", key, "bag", "suitcase"} and noun.en != "city"
    ]
    if not found:
        return None
    what = draw_phrase(rng, rng.choice(found), plain=rng.random() < 0.5)
    if not (what.count or what.determiner in ("a", "many", "some")):
        if what.number != "sg" or not what.noun.en_plural:
            return None
        what = replace(what, determiner="a")
    return Existence(what=what, place=where, question="polar" if what.determiner == "a" and rng.random() < 0.3 else "")


def _located(domain: Domain, rng: Random) -> Tree | None:
    asked = rng.random() < 0.35
    if rng.random() < 0.5:
        subject = draw_subject(domain, rng, frozenset(("person",)))
        where = draw_place(domain, rng)
    else:
        found = nouns_of(domain.letter, frozenset(("small", "paper", "picture", "text")))
        subject = draw_phrase(rng, rng.choice(found), subject=True, plain=True)
        where = draw_place(domain, rng, frozenset(("table", "bag", "suitcase", "kitchen", "room")), cities=0.0)
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


def _joined(domain: Domain, rng: Random) -> Tree | None:
    tense = rng.choice(["past", "present", ""])
    pair = draw_pair(domain, rng, (tense, tense))
    return Joined(first=pair[0], conjunction=rng.choice(["and", "but"]), second=pair[1]) if pair else None


def _because(domain: Domain, rng: Random) -> Tree | None:
    tense = rng.choice(["past", "present", "future", "can", "must", "want"])
    reason = "past" if tense == "past" else rng.choice(["present", "want", "must", "present"])
    if domain.letter in "dt" and rng.random() < 0.12:
        main = draw_side(domain, rng, tense)
        rain = weather(rng, "past" if tense == "past" else "progressive")
        return Subordinated(main=main, conjunction="because", condition=rain) if main else None
    pair = draw_pair(domain, rng, (tense, reason))
    return Subordinated(main=pair[0], conjunction="because", condition=pair[1]) if pair else None


def _condition(domain: Domain, rng: Random) -> Tree | None:
    conjunction: Literal["if", "when"] = rng.choice(["if", "if", "when"])
    pair = draw_pair(domain, rng, (rng.choice(["future", "can", "must", "should"]), "present"))
    if domain.letter in "dt" and rng.random() < 0.15:
        main = draw_side(domain, rng, "future")
        return Subordinated(main=main, conjunction=conjunction, condition=weather(rng, "present")) if main else None
    if pair is None or isinstance(pair[0], Copula):
        return None
    main, condition = pair
    main = replace(main, time=None)
    condition = replace(condition, time=None)
    if isinstance(condition, Clause):
        condition = replace(condition, adverb=None)
    return Subordinated(main=main, conjunction=conjunction, condition=condition)


def _reported(domain: Domain, rng: Random) -> Tree | None:
    found = [(chosen, past) for chosen, past in reports() if domain.letter in chosen.domains]
    chosen, past = rng.choice(found)
    subject = draw_subject(domain, rng, chosen.subjects)
    if chosen.en[0] == "hope":
        content = draw_side(domain, rng, "future")
    elif chosen.en[0] == "announce":
        content = _change(domain, rng) if rng.random() < 0.4 else draw_side(domain, rng, "future")
        content = (
            replace(content, tense="future", time=None)
            if isinstance(content, Copula) and isinstance(content.complement, Change)
            else content
        )
    else:
        content = draw_side(domain, rng)
    if subject is None or content is None or isinstance(subject, Phrase) and subject.determiner in ("a", "every"):
        return None
    if chosen.en[0] in ("hope", "announce") and isinstance(content, Copula) and content.tense != "future":
        return None
    past = past and (chosen.en[1] == "-" or rng.random() < 0.8)
    return Reported(subject=subject, verb=chosen, tense="past" if past else "present", content=content)


def _relative(domain: Domain, rng: Random) -> Tree | None:
    inner = draw_clause(domain, rng, tense=rng.choice(["present", "past"]), timed=False, short=True)
    outer = draw_clause(domain, rng, tense=rng.choice(["past", "present", "future", "want"]), timed=False, short=True)
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
    things = nouns_of(domain.letter, chosen.objects - {"person"})
    subject = draw_phrase(rng, rng.choice(things), subject=True)
    if subject.determiner in ("a", "every"):
        return None
    time = draw_time(domain, rng, "past")
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
    tense: CopulaTense = rng.choice(["past", "future"])
    time = draw_time(domain, rng, tense)
    change = Change(up=rng.random() < 0.6, percent=rng.randint(2, 60))
    return Copula(subject=subject, complement=change, tense=tense, time=time, front=bool(time) and rng.random() < 0.4)


def _owned_good(rng: Random) -> Phrase:
    return Phrase(noun=noun(rng.choice(["car", "house"])), number="pl")


def _purpose(domain: Domain, rng: Random) -> Tree | None:
    clause = draw_clause(domain, rng, tense=rng.choice(["present", "past", "can"]), timed=False)
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
    target = draw_object(domain, rng, goal.objects, None)
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
    clause = draw_clause(domain, rng, tense=tense, timed=False)
    if clause is None or clause.negative:
        return None
    return replace(clause, time=frame, front=True)


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
    "formula": draw_formula,
}
