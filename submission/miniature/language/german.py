"""German of the miniature's language: case, agreement, and the order of the clause.

A clause is built as its topological fields: an opening, the finite verb, the subject, the middle field, and the
right bracket (separable prefix, participle, infinitive). `main` puts the finite verb second, `question` first,
`final` last. Order of the middle field: object pronouns, time, dative, adverb, place, accusative, negation, goal.
"""

from __future__ import annotations

from dataclasses import dataclass

from submission.miniature.language import closed
from submission.miniature.language.german_forms import (
    CASES,
    DEFINITE,
    PRONOUNS,
    after_preposition,
    article,
    auxiliary,
    noun_form,
    present,
)
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
    is_definite,
)
from submission.miniature.language.words import City, Time

_CONJUNCTIONS = {"and": "und", "but": "aber", "because": "weil", "if": "wenn", "when": "wenn"}


def render(tree: Tree) -> str:
    """Return the German sentence."""
    text, mark = _sentence(tree)
    text = text.replace(",,", ",").rstrip(",")  # a relative clause ends in a comma of its own
    return text[0].upper() + text[1:] + mark


def _sentence(tree: Tree) -> tuple[str, str]:
    match tree:
        case Formula():
            return tree.de[:-1].format_map({name: _Slot(value) for name, value in tree.slots}), tree.de[-1]
        case Joined():
            return f"{_main(tree.first)}, {_CONJUNCTIONS[tree.conjunction]} {_main(tree.second)}", "."
        case Subordinated(conjunction="because"):
            return f"{_main(tree.main)}, weil {_final(tree.condition)}", "."
        case Subordinated():
            return f"{_CONJUNCTIONS[tree.conjunction]} {_final(tree.condition)}, {_inverted(tree.main)}", "."
        case Reported():
            return f"{_report(tree)}, dass {_final(tree.content)}", "."
        case _:
            return _main(tree), "?" if tree.question else "."


class _Slot:
    """An open place of a formula: `{name:acc}` names the case, `{name:bei}` a preposition with the dative."""

    def __init__(self, value: Filler) -> None:
        self._value = value

    def __format__(self, form: str) -> str:
        match self._value:
            case Time() | City():
                return self._value.de
            case Place():
                return place(self._value, goal=form == "goal")
            case tuple():
                return self._value[1]
        if form in ("", *CASES):
            return nominal(self._value, form or "nom")
        return after_preposition(form, nominal(self._value, "dat"))


def _report(tree: Reported) -> str:
    subject = nominal(tree.subject, "nom")
    if tree.tense == "past":
        return f"{subject} {auxiliary('haben', tree.subject)} {tree.verb.de_participle}"
    return f"{subject} {present(tree.verb, tree.subject)} {tree.verb.de_prefix}".strip()


def nominal(value: Nominal, case: str) -> str:
    """Return a noun phrase, name or pronoun in a case (nom, acc, dat, gen)."""
    if isinstance(value, Pronoun):
        return PRONOUNS[value.word][CASES.index(case)]
    if isinstance(value, Named):
        return value.person.de if case == "nom" else value.person.de_oblique
    column = "pl" if value.number == "pl" else value.noun.gender
    determiner, endings = article(value, column, case)
    words = [determiner]
    if value.adjective:
        words.append(value.adjective.de_stem + endings[column][CASES.index(case)])
    words.append(noun_form(value.noun, value.number, case))
    if value.owner:
        words.append(nominal(value.owner, "gen"))
    text = " ".join(word for word in words if word)
    if value.relative:
        clause = _fields(value.relative, Phrase(noun=value.noun, number=value.number)).final("")
        text += f", {DEFINITE[column][0]} {clause},"
    return text


def place(value: Place, *, goal: bool = False) -> str:
    """Return `im Park`, or `in den Park`; `in Berlin`, or `nach Berlin`."""
    if isinstance(value.at, City):
        return f"{'nach' if goal else 'in'} {value.at.de}"
    assert value.at is not None and value.at.noun.place is not None  # only such nouns are drawn as places
    setting = value.at.noun.place
    if goal:
        return after_preposition(setting.de_goal, nominal(value.at, setting.de_goal_case))
    return after_preposition(setting.de, nominal(value.at, "dat"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fields:
    """The topological fields of a clause."""

    subject: str
    front: str
    """What may open a main clause instead of the subject: a time, a question word."""
    finite: str
    middle: list[str]
    right: str
    """Infinitive, participle or separable prefix."""
    prefixed: bool
    """The right bracket is a prefix: verb-final clauses write it with the finite verb."""
    after: str = ""
    """Behind the right bracket: the purpose clause."""

    def main(self) -> str:
        opening = [self.front, self.finite, self.subject] if self.front else [self.subject, self.finite]
        return self._text([*opening, *self.middle, self.right])

    def question(self) -> str:
        return self._text([self.finite, self.subject, *self.middle, self.right])

    def final(self, subject: str | None = None) -> str:
        end = self.right + self.finite if self.prefixed else f"{self.right} {self.finite}".strip()
        return self._text([self.subject if subject is None else subject, *self.middle, end])

    def _text(self, words: list[str]) -> str:
        return " ".join(word for word in words if word) + self.after


def _main(tree: AnyClause) -> str:
    fields = _fields(tree, getattr(tree, "subject", None))
    return fields.question() if tree.question == "polar" else fields.main()


def _inverted(tree: AnyClause) -> str:
    return _fields(tree, getattr(tree, "subject", None), fronted=False).question()


def _final(tree: AnyClause) -> str:
    return _fields(tree, getattr(tree, "subject", None), fronted=False).final()


def _fields(tree: AnyClause, subject: Nominal | None, *, fronted: bool = True) -> _Fields:
    match tree:
        case Existence():
            where = [nominal(tree.what, "acc"), place(tree.place)]
            return _Fields(subject="es", front="", finite="gibt", middle=where, right="", prefixed=False)
        case Copula():
            assert subject is not None  # the tree's own
            return _copula(tree, subject, fronted)
    finite, right, prefixed = _bracket(tree, subject)
    front = tree.time.de if tree.time and tree.front and fronted else ""
    if tree.imperative:
        return _Fields(
            subject="Sie",
            front="bitte",
            finite=finite,
            middle=_middle(tree, fronted),
            right=right,
            prefixed=prefixed,
        )
    assert subject is not None  # imperatives alone have none
    said = nominal(subject, "nom") if tree.question != "who" else ""
    return _Fields(
        subject=said,
        front=_asked(tree) or front,
        finite=finite,
        middle=_middle(tree, fronted),
        right=right,
        prefixed=prefixed,
        after=_purpose(tree.purpose) if tree.purpose else "",
    )


def _asked(tree: Clause) -> str:
    if tree.question == "how many":
        assert isinstance(tree.object, Phrase)  # the pattern asks for nothing else
        return f"wie viele {noun_form(tree.object.noun, 'pl', 'acc')}"
    if tree.question == "where" and "t" in tree.verb.uses:
        return "wohin"
    words = {"who": "wer", "what": "was", "when": "wann", "where": "wo", "why": "warum"}
    return words.get(tree.question, "")


def _bracket(tree: Clause, subject: Nominal | None) -> tuple[str, str, bool]:
    """Return the finite verb, the right bracket, and whether that is a separable prefix."""
    verb = tree.verb
    participle = verb.de_participle
    if tree.imperative:
        return verb.de, verb.de_prefix, True
    if tree.passive:
        return auxiliary("wurde", subject), participle, False
    if tree.modal:
        return auxiliary(tree.modal, subject), verb.de_infinitive, False
    if tree.tense == "future":
        return auxiliary("werden", subject), verb.de_infinitive, False
    if tree.tense in ("past", "perfect"):
        return auxiliary(verb.de_auxiliary, subject), participle, False
    return present(verb, subject), verb.de_prefix, True


def _middle(tree: Clause, fronted: bool) -> list[str]:
    verb = tree.verb
    asked = tree.question in ("what", "how many")
    pronouns: list[str] = []
    dative: list[str] = []
    accusative: list[str] = []
    bound: list[str] = []
    if tree.second and not verb.de_second:
        (pronouns if isinstance(tree.second, Pronoun) else dative).append(nominal(tree.second, "dat"))
    negated = tree.negative
    if tree.object and not asked:
        value, negated = _negated(tree)
        text = nominal(value, verb.de_case)
        if verb.de_preposition:
            bound.append(after_preposition(verb.de_preposition, text))
        elif isinstance(value, Pronoun):
            pronouns.insert(0, text)
        else:
            (dative if verb.de_case == "dat" else accusative).append(text)
    if tree.second and verb.de_second:
        bound.append(after_preposition(verb.de_second, nominal(tree.second, "dat")))
    time = [tree.time.de] if tree.time and not (tree.front and fronted and not _asked(tree)) else []
    adverb = [tree.adverb.de] if tree.adverb else []
    progressive = ["gerade"] if tree.tense == "progressive" and not tree.time else []
    where = [place(tree.place)] if tree.place else []
    vehicle = (
        [after_preposition("mit", {"train": "dem Zug", "bus": "dem Bus", "car": "dem Auto"}[tree.vehicle])]
        if tree.vehicle
        else []
    )
    goal = [place(tree.goal, goal=True)] if tree.goal else []
    negation = ["nicht"] if negated else []
    if not tree.object:
        return [*time, *progressive, *adverb, *negation, *vehicle, *where, *goal]
    if tree.tense == "perfect" and is_definite(tree.object):
        accusative, adverb = (
            [],
            [*accusative, *adverb],
        )  # den Brief schon gelesen, but schon zwei Briefe gelesen
    return [*pronouns, *time, *progressive, *dative, *adverb, *where, *accusative, *negation, *bound, *goal]


def _negated(tree: Clause) -> tuple[Nominal, bool]:
    """Return the object, with kein for what is indefinite, and whether `nicht` is still to be said."""
    value = tree.object
    assert value is not None  # the caller has seen to it
    if tree.negative and isinstance(value, Phrase) and not value.count and value.determiner in ("a", ""):
        return Phrase(noun=value.noun, number=value.number, determiner="no", adjective=value.adjective), False
    return value, tree.negative


def _purpose(tree: Clause) -> str:
    verb = tree.verb
    assert tree.object is not None  # the pattern gives every purpose one
    zu = f"{verb.de_prefix}zu{verb.de}" if verb.de_prefix else f"zu {verb.de}"
    return f", um {nominal(tree.object, verb.de_case)} {zu}"


def _copula(tree: Copula, subject: Nominal, fronted: bool) -> _Fields:
    front = tree.time.de if tree.time and tree.front and fronted else ""
    middle = [tree.time.de] if tree.time and not front else []
    if isinstance(tree.complement, Change):
        rise = tree.complement.up
        middle.append(f"um {closed.german_number(tree.complement.percent)} Prozent")
        word, right = ("werden", "steigen" if rise else "sinken")
        if tree.tense != "future":
            word, right = "sein", "gestiegen" if rise else "gesunken"
    else:
        middle += ["nicht"] if tree.negative else []
        middle.append(_complement(tree.complement))
        word, right = {"present": ("sein", ""), "past": ("war", ""), "future": ("werden", "sein")}[tree.tense]
    asked = {"why": "warum", "where": "wo"}.get(tree.question, "")
    return _Fields(
        subject=nominal(subject, "nom"),
        front=asked or front,
        finite=auxiliary(word, subject),
        middle=middle,
        right=right,
        prefixed=False,
    )


def _complement(value: Quality | Place) -> str:
    if isinstance(value, Place):
        return "" if value.at is None else place(value)
    if value.than:
        return f"{value.adjective.de_comparative} als {nominal(value.than, 'nom')}"
    return f"{ {'': '', 'very': 'sehr', 'too': 'zu'}[value.degree] } {value.adjective.de}".strip()
