"""The word classes of the miniature's language: one record per lexeme, with its forms in three languages.

A record holds every form that the three linearisers need, so that none of them guesses an inflection: German
gender, plural and participles are data, only regular endings (articles, adjectives, dative plural, genitive)
are computed. The tables themselves are in `nouns`, `verbs` and `closed`.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Noun:
    """A noun."""

    en: str
    en_plural: str
    """Empty for nouns that the language uses in the singular only."""
    gender: str
    """German gender: m, f or n."""
    de: str
    de_plural: str
    weak: bool
    """German weak declension: all but the nominative singular are the plural form (der Kunde, den Kunden)."""
    zh: str
    measure: str
    """Chinese measure word."""
    tags: frozenset[str]
    """What it is (person, food, document, ...): what verbs and adjectives ask for."""
    domains: str
    """Letters of the domains that use it."""
    place: Setting | None = None
    """How one is at it and goes to it; None for what is not a place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The prepositions of a place."""

    en: str
    """Being there (in, at, on); going there is always `to`."""
    de: str
    """Being there, with the dative."""
    de_goal: str
    """Going there."""
    de_goal_case: str
    zh: str
    """Localiser after the noun (里, 上) when being there, or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjective:
    """An adjective."""

    en: str
    de: str
    """Predicative form."""
    de_stem: str
    """What the endings are added to (teuer: teur-)."""
    zh: str
    """Attributive form, with 的 where it is said."""
    zh_predicate: str
    """Bare predicate (贵); empty for what is only said before a noun."""
    en_comparative: str
    de_comparative: str
    attributive: bool
    tags: frozenset[str]
    domains: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """A verb with its frame."""

    en: tuple[str, str, str, str, str]
    """Base, third person, past, participle, -ing; a dash for a form that the language does not use."""
    en_preposition: str
    """Before the object (wait *for*)."""
    de: str
    """Infinitive without the separable prefix."""
    de_third: str
    de_participle: str
    de_prefix: str
    """Separable prefix, or nothing."""
    de_auxiliary: str
    """Perfect with haben or sein."""
    de_preposition: str
    """Before the object (warten *auf*)."""
    de_case: str
    """Case of the object."""
    zh: str
    """Verb phrase: O object, I second object, G goal, P place where it follows the verb, * where 了 goes."""
    zh_ba: str
    """The same with 把, for definite objects in completed or wanted actions; empty if none."""
    subjects: frozenset[str]
    objects: frozenset[str]
    seconds: frozenset[str] = field(default=frozenset())
    """Tags of the second object (the recipient; what something is compared with)."""
    en_second: str = ""
    """Preposition of the second object; empty: it stands before the object."""
    de_second: str = ""
    """Preposition of the second object (with the dative); empty: the bare dative."""
    uses: str
    """Letters: p present, g progressive, a past, f perfect, u future, m modal, i imperative, b passive, n negated
    without a past, t to a goal, l says where."""
    domains: str

    @property
    def de_infinitive(self) -> str:
        """The German infinitive with its separable prefix, in one word."""
        return self.de_prefix + self.de


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody with a name."""

    en: str
    de: str
    de_oblique: str
    """Accusative and dative (Herrn Miller)."""
    zh: str
    gender: str


@dataclass(frozen=True, slots=True, kw_only=True)
class City:
    """A town or country: a place without an article."""

    en: str
    de: str
    zh: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Time:
    """An adverbial of time; it is the same in every clause."""

    en: str
    de: str
    zh: str
    when: str
    """past, future, habit or now."""
    clock: bool = False
    """Already says the hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adverb:
    """An adverb of the middle field (always, already)."""

    en: str
    de: str
    zh: str
