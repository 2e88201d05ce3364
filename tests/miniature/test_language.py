"""The miniature's language: spoken forms, times of day, and properties of what it draws."""

from __future__ import annotations

import re

import pytest

from submission.errors import UserError
from submission.miniature.language import (
    DOMAINS,
    Sentence,
    capacity,
    closed,
    english,
    sentences,
    split_of,
)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("The train to Rome departs at half past seven.", "The train to Rome departs at half past seven."),
        ("There are 42 people.", "There are forty two people."),
        ("My phone number is 471-928.", "My phone number is four seven one nine two eight."),
        ("In 1984 Mrs. Miller met Mr. Weber.", "In nineteen eighty four missus Miller met mister Weber."),
        ("We used 300 recordings in 2005.", "We used three hundred recordings in two thousand five."),
        ("The bill comes to 213 euros.", "The bill comes to two hundred thirteen euros."),
    ],
)
def test_spoken_english_has_neither_digits_nor_abbreviations(source, said):
    assert english.spoken(source) == said


def test_times_of_day_have_the_form_of_each_language():
    texts = {hour.en: (hour.de, hour.zh) for hour in closed.hours()}
    assert texts["at half past seven"] == ("um halb acht", "七点半")
    assert texts["at quarter to one"] == ("um Viertel vor eins", "十二点三刻")
    assert texts["at two o'clock"] == ("um zwei Uhr", "两点")
    assert texts["at one o'clock"] == ("um ein Uhr", "一点")
    assert texts["at twenty to twelve"] == ("um zwanzig vor zwölf", "十一点四十分")


@pytest.fixture(scope="module")
def drawn() -> list[Sentence]:
    return [
        sentence
        for domain in DOMAINS
        for split in ("train", "heldout")
        for sentence in sentences(domain, 1000 if split == "train" else 250, seed=1, split=split)
    ]


def test_sentences_are_well_formed_text_in_every_language(drawn):
    for sentence in drawn:
        assert 3 <= len(sentence.source.split(" ")) <= 15, sentence
        assert not re.search(r"[\d.]\S*(?<![.?!])$|\d|Mr", sentence.spoken), sentence
        for text in (sentence.source, sentence.spoken, *sentence.targets.values()):
            assert text == text.strip() and "  " not in text and " ," not in text, text
            assert text[-1] in ".?!。？！" and not re.search(r"[,，][.,。，?？]|[*{}_]", text), text
        for text in (sentence.source, sentence.targets["de"]):
            assert text[0].isupper() or text[0].isdigit(), text
        assert not re.search(r"[A-Za-z ]", sentence.targets["zh"]), sentence


def test_a_source_has_one_translation_whichever_domain_says_it(drawn):
    translations: dict[str, set] = {}
    for sentence in drawn:
        translations.setdefault(sentence.source, set()).add(tuple(sentence.targets.items()))
    assert all(len(found) == 1 for found in translations.values())


def test_the_vocabulary_is_a_few_hundred_words_and_talks_have_their_own(drawn):
    by_domain = {domain: set() for domain in DOMAINS}
    for sentence in drawn:
        by_domain[sentence.domain].update(re.findall(r"[a-z']+", sentence.spoken.lower()))
    everything = set().union(*by_domain.values())
    elsewhere = set().union(*(words for domain, words in by_domain.items() if domain != "talks"))
    assert 400 <= len(everything) <= 560
    assert len(by_domain["talks"] - elsewhere) >= 60
    assert {"the", "because", "will", "they"} <= by_domain["talks"]


@pytest.mark.parametrize("domain", DOMAINS)
def test_drawing_is_reproducible_and_held_out_text_is_never_in_training(domain):
    first, again = (sentences(domain, 300, seed=5, split="train") for _ in range(2))
    assert first == again
    assert first[:200] == sentences(domain, 200, seed=5, split="train")
    held_out = sentences(domain, 300, seed=5, split="heldout")
    sources = [sentence.source for sentence in (*first, *held_out)]
    assert len(set(sources)) == 600
    assert {split_of(sentence.source) for sentence in held_out} == {"heldout"}
    assert {split_of(sentence.source) for sentence in first} == {"train"}
    assert sentences(domain, 300, seed=6, split="train") != first


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_domain_has_tens_of_thousands_of_sentences(domain):
    assert capacity(domain, draws=2_000) > 10_000


def test_unknown_domains_and_splits_are_refused_by_name():
    with pytest.raises(UserError, match="no domain 'poetry'"):
        sentences("poetry", 1, seed=0)
    with pytest.raises(UserError, match="no split 'test'"):
        sentences("daily", 1, seed=0, split="test")
