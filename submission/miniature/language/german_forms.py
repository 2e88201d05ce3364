"""German forms: articles, endings of adjectives and nouns, contracted prepositions, conjugation."""

from __future__ import annotations

from submission.miniature.language import closed
from submission.miniature.language.grammar import POSSESSIVES, Nominal, Phrase, Pronoun, is_plural
from submission.miniature.language.words import Noun, Verb

Endings = dict[str, tuple[str, ...]]
"""Gender, or `pl` -> a text for each of `CASES`."""
CASES = ("nom", "acc", "dat", "gen")
PRONOUNS = {
    "I": ("ich", "mich", "mir"),
    "he": ("er", "ihn", "ihm"),
    "she": ("sie", "sie", "ihr"),
    "we": ("wir", "uns", "uns"),
    "you": ("Sie", "Sie", "Ihnen"),
    "they": ("sie", "sie", "ihnen"),
    "it": ("es", "es", "ihm"),
}
_POSSESSIVES = dict(zip(POSSESSIVES, ("mein", "sein", "ihr", "unser", "Ihr", "ihr"), strict=True))
DEFINITE: Endings = {
    "m": ("der", "den", "dem", "des"),
    "f": ("die", "die", "der", "der"),
    "n": ("das", "das", "dem", "des"),
    "pl": ("die", "die", "den", "der"),
}
_EIN: Endings = {
    "m": ("", "en", "em", "es"),
    "f": ("e", "e", "er", "er"),
    "n": ("", "", "em", "es"),
    "pl": ("e", "e", "en", "er"),
}
_DIES: Endings = {
    "m": ("er", "en", "em", "es"),
    "f": ("e", "e", "er", "er"),
    "n": ("es", "es", "em", "es"),
    "pl": ("e", "e", "en", "er"),
}
_WEAK: Endings = {
    "m": ("e", "en", "en", "en"),
    "f": ("e", "e", "en", "en"),
    "n": ("e", "e", "en", "en"),
    "pl": ("en",) * 4,
}
_MIXED: Endings = {
    "m": ("er", "en", "en", "en"),
    "f": ("e", "e", "en", "en"),
    "n": ("es", "es", "en", "en"),
    "pl": ("en",) * 4,
}
_STRONG: Endings = {
    "m": ("er", "en", "em", "en"),
    "f": ("e", "e", "er", "er"),
    "n": ("es", "es", "em", "en"),
    "pl": ("e", "e", "en", "er"),
}
_CONTRACTED = {
    ("in", "dem"): "im",
    ("an", "dem"): "am",
    ("zu", "dem"): "zum",
    ("zu", "der"): "zur",
    ("in", "das"): "ins",
    ("an", "das"): "ans",
    ("von", "dem"): "vom",
    ("bei", "dem"): "beim",
}
# first person and third person singular, plural
_AUXILIARIES = {
    "sein": ("bin", "ist", "sind"),
    "war": ("war", "war", "waren"),
    "haben": ("habe", "hat", "haben"),
    "hatte": ("hatte", "hatte", "hatten"),
    "werden": ("werde", "wird", "werden"),
    "wurde": ("wurde", "wurde", "wurden"),
    "can": ("kann", "kann", "können"),
    "must": ("muss", "muss", "müssen"),
    "should": ("sollte", "sollte", "sollten"),
    "want": ("will", "will", "wollen"),
}
_FIRST = {"mögen": "mag", "wissen": "weiß", "sammeln": "sammle", "haben": "habe"}


def article(phrase: Phrase, column: str, case: str) -> tuple[str, Endings]:
    """Return the article (or what stands in its place) and the endings that adjectives take after it."""
    index = CASES.index(case)
    if phrase.count:
        return closed.german_number(phrase.count), _STRONG
    match phrase.determiner:
        case "the":
            return DEFINITE[column][index], _WEAK
        case "this":
            return "dies" + _DIES[column][index], _WEAK
        case "every":
            return "jed" + _DIES[column][index], _WEAK
        case "many":
            return "viel" + _STRONG[column][index], _STRONG
        case "some":
            return "einig" + _STRONG[column][index], _STRONG
        case "a":
            return "ein" + _EIN[column][index], _MIXED
        case "no":
            return "kein" + _EIN[column][index], _MIXED
        case "":
            return "", _STRONG
    return _POSSESSIVES[phrase.determiner] + _EIN[column][index], _MIXED


def noun_form(noun: Noun, number: str, case: str) -> str:
    """Return the noun in number and case; a measured noun (Tassen Kaffee) is inflected in its first word."""
    if number == "pl":
        head, _, content = noun.de_plural.partition(" ")
        if case == "dat" and head[-1] not in "ns":
            head += "n"
        return f"{head} {content}".strip()
    if noun.weak and case != "nom":
        return noun.de_plural
    if case == "gen" and noun.gender != "f":
        return noun.de + ("es" if noun.de[-1] in "sßzx" or noun.de.endswith("st") else "s")
    return noun.de


def after_preposition(preposition: str, phrase: str) -> str:
    """Return the phrase with its preposition, contracted with the article where German does so (im, zur)."""
    first, _, rest = phrase.partition(" ")
    contracted = _CONTRACTED.get((preposition, first))
    return f"{contracted} {rest}" if contracted else f"{preposition} {phrase}"


def _person(subject: Nominal | None) -> int:
    """Return the column of the conjugation: 0 ich, 1 third person singular, 2 plural (and polite)."""
    if subject is None or is_plural(subject):
        return 2 if subject is not None else 1
    return 0 if isinstance(subject, Pronoun) and subject.word == "I" else 1


def auxiliary(word: str, subject: Nominal | None) -> str:
    """Return the finite form of an auxiliary or modal."""
    return _AUXILIARIES[word][_person(subject)]


def present(verb: Verb, subject: Nominal | None) -> str:
    """Return the finite present of a verb, without its separable prefix."""
    person = _person(subject)
    if person == 0:
        return _FIRST.get(verb.de, verb.de.removesuffix("n").removesuffix("e") + "e")
    return verb.de_third if person == 1 else verb.de
