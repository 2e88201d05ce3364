"""English of the miniature's language: trees to written text, and written text to what a voice says."""

from __future__ import annotations

import re

from submission.miniature.language import closed
from submission.miniature.language.grammar import (
    AnyClause,
    Change,
    Clause,
    Copula,
    Existence,
    Filler,
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
    is_plural,
)
from submission.miniature.language.words import City, Time, Verb

_OBJECT = {"I": "me", "he": "him", "she": "her", "we": "us", "they": "them"}
_MODALS = {"can": "can", "must": "must", "should": "should", "want": "want to"}


def render(tree: Tree) -> str:
    """Return the written English sentence."""
    text, mark = _sentence(tree)
    return text[0].upper() + text[1:] + mark


def _sentence(tree: Tree) -> tuple[str, str]:
    match tree:
        case Formula():
            return tree.en[:-1].format_map({name: _Slot(value) for name, value in tree.slots}), tree.en[-1]
        case Joined():
            return f"{_clause(tree.first)}, {tree.conjunction} {_clause(tree.second)}", "."
        case Subordinated(conjunction="because"):
            return f"{_clause(tree.main)} because {_clause(tree.condition)}", "."
        case Subordinated():
            return f"{tree.conjunction} {_clause(tree.condition)}, {_clause(tree.main)}", "."
        case Reported():
            return f"{nominal(tree.subject)} {_finite(tree)} that {_clause(tree.content)}", "."
        case _:
            return _clause(tree), "?" if tree.question else "."


class _Slot:
    """An open place of a formula; `{name}` is its subject form, `{name:acc}` its object form."""

    def __init__(self, value: Filler) -> None:
        self._value = value

    def __format__(self, form: str) -> str:
        match self._value:
            case Time() | City():
                return self._value.en
            case Place():
                return place(self._value, goal=form == "goal")
            case tuple():
                return self._value[0]
        return nominal(self._value, object=form == "acc")


def _finite(report: Reported) -> str:
    if report.tense == "past":
        return report.verb.en[2]
    return report.verb.en[1] if is_third(report.subject) else report.verb.en[0]


def is_third(subject: Nominal) -> bool:
    """Return whether the subject takes the third person singular."""
    return not is_plural(subject) and not (isinstance(subject, Pronoun) and subject.word == "I")


def _be(subject: Nominal, past: bool) -> str:
    if past:
        return "were" if is_plural(subject) else "was"
    if is_plural(subject):
        return "are"
    return "is" if is_third(subject) else "am"


def nominal(value: Nominal, *, object: bool = False) -> str:
    """Return a noun phrase, name or pronoun."""
    if isinstance(value, Pronoun):
        return _OBJECT.get(value.word, value.word) if object else value.word
    if isinstance(value, Named):
        return value.person.en
    plural = value.number == "pl"
    words = [_determiner(value, plural), value.adjective.en if value.adjective else ""]
    words.append(value.noun.en_plural if plural else value.noun.en)
    if value.determiner == "a":
        words[0] = "an" if (words[1] or words[2])[0] in "aeiou" else "a"
    if value.owner:
        words.append(f"of {nominal(value.owner)}")
    if value.relative:
        who = "who" if "person" in value.noun.tags else "that"
        words.append(f"{who} {_relative(value, value.relative)}")
    return " ".join(word for word in words if word)


def _determiner(phrase: Phrase, plural: bool) -> str:
    if phrase.count:
        return closed.english_number(phrase.count)
    if phrase.determiner == "this" and plural:
        return "these"
    return phrase.determiner


def _relative(phrase: Phrase, clause: Clause) -> str:
    bare = Phrase(noun=phrase.noun, number=phrase.number)
    _, operator, rest = _parts(clause, bare)
    return " ".join(word for word in (operator, *rest) if word)


def place(value: Place, *, goal: bool = False) -> str:
    """Return `in Berlin`, or `to Berlin`."""
    if isinstance(value.at, City):
        return f"{'to' if goal else 'in'} {value.at.en}"
    assert value.at is not None and value.at.noun.place is not None  # only such nouns are drawn as places
    return f"{'to' if goal else value.at.noun.place.en} {nominal(value.at)}"


def _clause(tree: AnyClause) -> str:
    if isinstance(tree, Existence):
        verb = "are" if tree.what.number == "pl" else "is"
        opening = f"{verb} there" if tree.question else f"there {verb}"
        return f"{opening} {nominal(tree.what)} {place(tree.place)}"
    if isinstance(tree, Clause) and tree.imperative:
        return " ".join(["please", *(["do not"] if tree.negative else []), *_complements(tree, tree.verb.en[0])])
    subject = tree.subject
    assert subject is not None  # of main clauses, imperatives alone have none
    asked, operator, rest = _parts(tree, subject)
    front = [tree.time.en] if tree.time and tree.front else []
    said = _who(tree) or nominal(subject)
    if tree.question and tree.question != "who":
        words = [*front, asked, operator, said, *rest]
    else:
        words = [*front, said, operator, *rest]
    return " ".join(word for word in words if word)


def _who(tree: AnyClause) -> str:
    return "who" if isinstance(tree, Clause) and tree.question == "who" else ""


def _parts(tree: Clause | Copula, subject: Nominal) -> tuple[str, str, list[str]]:
    """Return the question word, the operator (what inverts; empty where there is none), and the rest."""
    if isinstance(tree, Copula):
        return _copula(tree, subject)
    operator, verb = _verb_group(tree, subject)
    asked = {"polar": "", "who": "", "": ""}.get(tree.question, tree.question)
    if tree.question == "how many":
        assert isinstance(tree.object, Phrase)  # the pattern asks for nothing else
        asked = f"how many {tree.object.noun.en_plural}"
    inverted = tree.question not in ("", "who")
    if not operator and (inverted or tree.negative):
        operator = _do(tree, subject)
        verb = verb.replace(_finite_form(tree, subject), _base_form(tree), 1)
    rest = [*(["not"] if tree.negative else []), *([tree.adverb.en] if tree.adverb else [])]
    if operator == "can" and tree.negative and not inverted:
        operator, rest = "cannot", rest[1:]
    return asked, operator, [*rest, *_complements(tree, verb)]


def _do(tree: Clause, subject: Nominal) -> str:
    if tree.tense == "past":
        return "did"
    return "does" if is_third(subject) else "do"


def _base_form(tree: Clause) -> str:
    return "want to" if tree.modal == "want" else tree.verb.en[0]


def _finite_form(tree: Clause, subject: Nominal) -> str:
    if tree.modal == "want":
        return "wants to" if is_third(subject) else "want to"
    if tree.tense == "past":
        return tree.verb.en[2]
    return tree.verb.en[1] if is_third(subject) else tree.verb.en[0]


def _verb_group(tree: Clause, subject: Nominal) -> tuple[str, str]:
    base, _, _, participle, ing = tree.verb.en
    if tree.passive:
        return _be(subject, past=True), participle
    if tree.modal == "want":
        return "", f"{_finite_form(tree, subject)} {base}"
    if tree.modal:
        return _MODALS[tree.modal], base
    match tree.tense:
        case "progressive":
            return _be(subject, past=False), ing
        case "perfect":
            return "has" if is_third(subject) else "have", participle
        case "future":
            return "will", base
    return "", _finite_form(tree, subject)


def _complements(tree: Clause, verb: str) -> list[str]:
    lexeme: Verb = tree.verb
    words = [verb]
    asked = tree.question in ("what", "how many")
    if tree.second and not lexeme.en_second:
        words.append(nominal(tree.second, object=True))
    if isinstance(tree.object, Pronoun) and verb.endswith(" up"):
        words = [verb.removesuffix(" up"), nominal(tree.object, object=True), "up"]
    elif tree.object and not asked:
        words += [lexeme.en_preposition, nominal(tree.object, object=True)]
    elif asked:
        words.append(lexeme.en_preposition)
    if tree.second and lexeme.en_second:
        words += [lexeme.en_second, nominal(tree.second, object=True)]
    if tree.goal:
        words.append(place(tree.goal, goal=True))
    if tree.vehicle:
        words.append(f"by {tree.vehicle}")
    if tree.place:
        words.append(place(tree.place))
    if tree.purpose:
        words += ["to", *_complements(tree.purpose, tree.purpose.verb.en[0])]
    if tree.time and not tree.front:
        words.append(tree.time.en)
    return [word for word in words if word]


def _copula(tree: Copula, subject: Nominal) -> tuple[str, str, list[str]]:
    negation = ["not"] if tree.negative else []
    time = [tree.time.en] if tree.time and not tree.front else []
    asked = "" if tree.question == "polar" else tree.question
    if isinstance(tree.complement, Change):
        return "", *_change(tree, tree.complement, time)
    operator, be = ("will", ["be"]) if tree.tense == "future" else (_be(subject, tree.tense == "past"), [])
    return asked, operator, [*negation, *be, _complement(tree.complement), *time]


def _change(tree: Copula, change: Change, time: list[str]) -> tuple[str, list[str]]:
    up = change.up
    by = f"by {closed.english_number(change.percent)} percent"
    if tree.tense == "future":
        return "will", ["rise" if up else "fall", by, *time]
    return "", ["rose" if up else "fell", by, *time]


def _complement(value: Quality | Place) -> str:
    if isinstance(value, Place):
        return "" if value.at is None else place(value)
    if value.than:
        return f"{value.adjective.en_comparative} than {nominal(value.than)}"
    return f"{value.degree} {value.adjective.en}".strip()


_SPOKEN = (
    (re.compile(r"\bMr\."), lambda _: "mister"),
    (re.compile(r"\bMrs\."), lambda _: "missus"),
    (re.compile(r"\d+-\d+"), lambda m: closed.say_digits(m[0].replace("-", ""))),
    (re.compile(r"\b([Ii]n) (\d{4})\b"), lambda m: f"{m[1]} {closed.say_year(int(m[2]))}"),
    (re.compile(r"\d+"), lambda m: closed.say_number(int(m[0]))),
)


def spoken(source: str) -> str:
    """Return what a voice says for the written sentence: no digits, no abbreviations."""
    for pattern, say in _SPOKEN:
        source = pattern.sub(say, source)
    return source
