"""Random formulas of a domain: what fills their open places."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from submission.miniature.language import closed, formulas
from submission.miniature.language.domains import Domain
from submission.miniature.language.grammar import Filler, Formula, Named, Phrase, Tree
from submission.miniature.language.nouns import noun
from submission.miniature.language.phrases import draw_phrase, draw_place, nouns_of


def draw_formula(domain: Domain, rng: Random) -> Tree | None:
    """Return a formula of the domain with its places filled; None where there is nothing for one of them."""
    pattern = rng.choice([pattern for pattern in formulas.patterns() if domain.letter in pattern.domains])
    slots = []
    for name, kind in pattern.places:
        value = filler(domain, rng, kind)
        if value is None:
            return None
        slots.append((name, value))
    return Formula(en=pattern.en, de=pattern.de, zh=pattern.zh, slots=tuple(slots))


def filler(domain: Domain, rng: Random, kind: str) -> Filler | None:
    """Return what fills an open place of a formula: a nominal, place, time, city, or (en, de, zh) texts."""
    if kind.startswith("np:"):
        found = nouns_of(domain.letter, frozenset(kind[3:].split(",")))
        phrase = draw_phrase(rng, rng.choice(found))
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
            return rng.choice([time for time in closed.moments(clocks=True) if time.when in ("future", "any")])
        case "hour":
            return rng.choice(closed.hours())
        case "time":
            hour = rng.choice(closed.hours())
            return (hour.en.removeprefix("at "), hour.de.removeprefix("um "), hour.zh)
        case "place":
            return draw_place(domain, rng, cities=0.0)
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
