"""Chinese of the miniature's language: measure words, and everything that modifies the verb before the verb.

Order of the clause: subject, time, 都, adverb, negation or modal, 正在, place, vehicle, verb phrase. The verb phrase
is the verb's own pattern (`words.Verb.zh`).
"""

from __future__ import annotations

from submission.miniature.language import closed
from submission.miniature.language.grammar import (
    POSSESSIVES,
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
    Reported,
    Subordinated,
    Tree,
    is_definite,
)
from submission.miniature.language.words import City, Time

_PRONOUNS = {"I": "我", "he": "他", "she": "她", "we": "我们", "you": "您", "they": "他们", "it": ""}
_POSSESSIVES = dict(zip(POSSESSIVES, ("我的", "他的", "她的", "我们的", "您的", "他们的"), strict=True))
_MODALS = {"can": "可以", "must": "必须", "should": "应该", "want": "想"}
_NOT_MODALS = {"can": "不能", "must": "不能", "should": "不应该", "want": "不想"}


def render(tree: Tree) -> str:
    """Return the Chinese sentence."""
    match tree:
        case Formula():
            return tree.zh.format_map({name: _Slot(value) for name, value in tree.slots})
        case Joined():
            joint = "，但是" if tree.conjunction == "but" else "，"
            return f"{_clause(tree.first)}{joint}{_clause(tree.second)}。"
        case Subordinated(conjunction="because"):
            return f"因为{_clause(tree.condition)}，所以{_clause(tree.main)}。"
        case Subordinated(conjunction="if"):
            return f"如果{_clause(tree.condition)}，{_clause(tree.main)}。"
        case Subordinated():
            condition = _clause(tree.condition).removesuffix("了")  # 太大了, but 太大的时候
            return f"{condition}的时候，{_clause(tree.main)}。"
        case Reported():
            said = tree.verb.zh.replace("*", "")
            return f"{nominal(tree.subject)}{said}{_clause(tree.content)}。"
    return _clause(tree) + ("？" if tree.question else "。")


class _Slot:
    """An open place of a formula."""

    def __init__(self, value: Filler) -> None:
        self._value = value

    def __format__(self, form: str) -> str:
        match self._value:
            case Time() | City():
                return self._value.zh
            case Place():
                return place(self._value, goal=form == "goal")
            case tuple():
                return self._value[2]
        return nominal(self._value)


def nominal(value: Nominal, *, bare: bool = False) -> str:
    """Return a noun phrase, name or pronoun; `bare` leaves out 一 with its measure word (after a negation)."""
    if isinstance(value, Pronoun):
        return _PRONOUNS[value.word]
    if isinstance(value, Named):
        return value.person.zh
    words = [nominal(value.owner) + "的"] if value.owner else []
    if value.relative:
        words.append(_predicate(value.relative, None).removesuffix("了") + "的")
    determiner = "" if bare else _determiner(value)
    adjective = value.adjective.zh if value.adjective else ""
    if determiner.endswith("的") and adjective.endswith("的"):
        determiner = determiner[:-1]
    words += [determiner, adjective]
    words.append(value.noun.zh)
    if value.number == "pl" and "person" in value.noun.tags and value.determiner in ("the", *POSSESSIVES):
        words.append("们")
    return "".join(words)


def _determiner(phrase: Phrase) -> str:
    measure = phrase.noun.measure
    if phrase.count:
        return closed.chinese_number(phrase.count) + measure
    if phrase.determiner in _POSSESSIVES:
        return _POSSESSIVES[phrase.determiner]
    if phrase.determiner == "this":
        return "这些" if phrase.number == "pl" else "这" + measure
    words = {"a": "一" + measure, "every": "每" + measure, "many": "很多", "some": "一些"}
    return words.get(phrase.determiner, "")


def place(value: Place, *, goal: bool = False) -> str:
    """Return where (厨房里, 柏林), without 在; a goal has no localiser."""
    if isinstance(value.at, City):
        return value.at.zh
    assert value.at is not None and value.at.noun.place is not None  # only such nouns are drawn as places
    return nominal(value.at) + ("" if goal else value.at.noun.place.zh)


def _clause(tree: AnyClause) -> str:
    if isinstance(tree, Existence):
        return f"{place(tree.place)}有{nominal(tree.what)}" + ("吗" if tree.question else "")
    if isinstance(tree, Clause) and tree.imperative:
        time = tree.time.zh if tree.time else ""
        return "请" + time + ("不要" if tree.negative else "") + _verb_phrase(tree)
    assert tree.subject is not None  # of main clauses, imperatives alone have none
    subject = "谁" if tree.question == "who" else nominal(tree.subject)
    time = tree.time.zh if tree.time else ""
    if tree.question == "when":
        time = "什么时候"
    opening = time + subject if tree.front and tree.question != "when" else subject + time
    if isinstance(tree, Copula) and isinstance(tree.subject, Pronoun) and tree.subject.word == "it":
        opening = time + "天气"
    every = isinstance(tree.subject, Phrase) and tree.subject.determiner == "every" and tree.question != "who"
    return (
        opening + ("都" if every else "") + _predicate(tree, tree.subject) + ("吗" if tree.question == "polar" else "")
    )


def _predicate(tree: Clause | Copula, subject: Nominal | None) -> str:
    """Return everything after subject and time."""
    why = "为什么" if tree.question == "why" else ""
    if isinstance(tree, Copula):
        return why + _copula(tree)
    time = tree.time.zh if subject is None and tree.time else ""
    return time + why + _adverb(tree) + _polarity(tree) + _where(tree) + _verb_phrase(tree)


def _adverb(tree: Clause) -> str:
    return tree.adverb.zh if tree.adverb else ""


def _polarity(tree: Clause) -> str:
    if tree.modal:
        return (_NOT_MODALS if tree.negative else _MODALS)[tree.modal]
    if tree.tense == "future":
        return "不会" if tree.negative else "会"
    if tree.negative:
        return "没" if tree.verb.zh.startswith("有") else "没有" if tree.tense == "past" else "不"
    return ""


def _where(tree: Clause) -> str:
    inside = "P" in tree.verb.zh
    if tree.question == "where" and not inside and "t" not in tree.verb.uses:
        where = "在哪里"
    else:
        where = "在" + place(tree.place) if tree.place and not inside else ""
    if tree.tense == "progressive":
        return "正" + where if where else "正在"
    return where


def _verb_phrase(tree: Clause) -> str:
    verb = tree.verb
    completed = tree.tense in ("past", "perfect") and not tree.negative
    if tree.passive:
        return "被" + verb.zh.replace("O", "").replace("*", "") + "了"
    bare = tree.negative and isinstance(tree.object, Phrase) and tree.object.determiner == "a"
    if tree.question == "what":
        things = "什么"
    elif tree.question == "how many":
        assert isinstance(tree.object, Phrase)  # the pattern asks for nothing else
        things = "多少" + tree.object.noun.measure + tree.object.noun.zh
    else:
        things = nominal(tree.object, bare=bare) if tree.object else ""
    wanted = completed or tree.modal or tree.imperative or tree.tense == "future"
    pattern = verb.zh_ba if verb.zh_ba and is_definite(tree.object) and not tree.question and wanted else verb.zh
    if pattern == verb.zh_ba and tree.negative and not tree.imperative:
        pattern = verb.zh
    where = "在哪里" if tree.question == "where" else _inner_place(tree)
    goal = "哪里" if tree.question == "where" else place(tree.goal, goal=True) if tree.goal else ""
    parts = {
        "O": things,
        "I": nominal(tree.second) if tree.second else "",
        "P": where,
        "G": goal,
        "V": closed.VEHICLES[tree.vehicle] if tree.vehicle else "",
        "*": "了" if completed else "",
    }
    text = "".join(parts.get(letter, letter) for letter in pattern)
    if tree.purpose:
        text += "来" + _verb_phrase(tree.purpose)
    return text


def _inner_place(tree: Clause) -> str:
    if not tree.place:
        return ""
    return place(tree.place, goal=True) if tree.verb.zh.startswith("到") else "在" + place(tree.place)


def _copula(tree: Copula) -> str:
    complement = tree.complement
    if isinstance(complement, Change):
        will = "会" if tree.tense == "future" else ""
        done = "" if will else "了"
        return f"{will}{'上涨' if complement.up else '下降'}{done}{complement.percent}%"
    if isinstance(complement, Place):
        return ("不" if tree.negative else "") + "在" + (place(complement) if complement.at else "哪里")
    bare = complement.adjective.zh_predicate
    if complement.than:
        return f"比{nominal(complement.than)}{bare}"
    will = "会" if tree.tense == "future" else ""
    if tree.negative:
        return ("不会" if will else "不") + bare
    if complement.degree == "too":
        return f"{will}太{bare}了"
    if complement.degree == "very":
        return f"{will}非常{bare}"
    return will + (bare if tree.question == "polar" else "很" + bare)
