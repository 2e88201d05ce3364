"""Options of corpora and fine-tuning in recipes: what is accepted, and which contradictions are refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from submission.errors import UserError
from submission.system.campaign import read_campaign
from submission.system.data_folder import missing_parts, needed_languages, required_parts
from submission.system.recipe.recipe_files import read_recipe
from submission.system.recipe.training_options import CorpusOptions, Source
from submission.system.system import System
from tests.train.finetuning_inputs import options
from tests.train.support import write_acl
from train.corpora.paper_sizes import TABLE_3

TALKS = Source(name="talks", format="plain")


def corpus(*sources: Source, **utterances: int) -> CorpusOptions:
    return CorpusOptions(sources=sources, utterances={"de": 10} | utterances, seed=1)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ((Source(name="a", format="plain", utterances={"de": 11}), TALKS), "the corpora give 11.*requests 10"),
        ((Source(name="a", format="plain", utterances={"zh": 1}), TALKS), "utterances.zh: not in corpus.utterances"),
        ((Source(name="a", format="plain", utterances={"de": 0}), TALKS), "utterances.de: 0 is not positive"),
        ((TALKS, TALKS), "repeats a name"),
    ],
)
def test_numbers_per_corpus_that_contradict_the_whole_are_refused(sources: tuple[Source, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        corpus(*sources)


HUB = {"files": ("data/*.parquet",), "columns": {"audio": "audio", "source": "text"}, "targets": {"de": "de"}}


@pytest.mark.parametrize(
    ("layout", "changes", "message"),
    [
        ("plian", {}, "format: 'plian' is unknown; did you mean 'plain'"),
        ("plain", {"files": ("*.tsv",)}, "files: format 'plain' reads no such option"),
        ("hub", {"columns": {}}, "columns: missing, which format 'hub' needs"),
        ("hub", {"columns": {"audio": "audio"}}, "columns.source: missing; write source ="),
        ("hub", {"columns": HUB["columns"] | {"text": "x"}}, "columns.text: unknown; known: audio, source"),
        ("hub", {"files": ("../other/*.parquet",)}, "leaves the corpus folder"),
    ],
)
def test_a_source_with_options_that_its_format_does_not_read_is_refused(
    layout: str, changes: dict, message: str
) -> None:
    given = HUB | changes if layout == "hub" else changes
    with pytest.raises(ValueError, match=message):
        Source(name="talks", format=layout, **given)


def test_a_hub_snapshot_needs_the_files_that_its_source_names(tmp_path: Path) -> None:
    campaign, recipe = read_campaign("iwslt26"), read_recipe("primary", "iwslt26")
    corpora = replace(recipe.corpus, sources=(Source(name="talks", format="hub", **HUB),))
    required = required_parts(campaign, replace(recipe, corpus=corpora))
    assert {part.part: part.holds for part in required}["corpora/talks"] == ("data/*.parquet",)


def test_a_language_needs_a_name_for_the_prompt() -> None:
    campaign = {"de": "German", "zh": "Chinese"}
    assert corpus(TALKS, zh=0).trained_languages(campaign) == campaign
    with pytest.raises(UserError, match=r"utterances.tr.*\[corpus.languages\], tr ="):
        corpus(TALKS, tr=5).trained_languages(campaign)
    named = CorpusOptions(sources=(TALKS,), utterances={"tr": 5, "de": 0}, seed=1, languages={"tr": "Turkish"})
    assert named.trained_languages(campaign) == {"de": "German", "tr": "Turkish"}


def test_a_negative_number_of_translations_is_refused() -> None:
    with pytest.raises(ValueError, match="bleu_utterances: -1 is negative"):
        options(bleu_utterances=-1)


@pytest.mark.parametrize("name", ["iwslt26", "miniature"])
def test_the_constrained_recipe_needs_nothing_but_acl_6060_to_train(name: str, tmp_path: Path) -> None:
    campaign, recipe = read_campaign(name), read_recipe("constrained", name)
    parts = [required.part for required in required_parts(campaign, recipe)]
    assert len(parts) == len(set(parts))
    assert not [part for part in parts if part.startswith("corpora/")]
    assert recipe.finetune.keep == "best" and recipe.corpus.held_out_recordings == 1
    stages = {stage.name: stage for stage in System(campaign, recipe, None, tmp_path).stages()}
    assert stages["corpus"].options["held_out_recordings"] == 1
    assert stages["finetune"].options["keep"] == "best"


def test_acl_dev_may_have_its_texts_as_xml_alone(tmp_path: Path) -> None:
    campaign, recipe = read_campaign("iwslt26"), read_recipe("primary", "iwslt26")
    required = [part for part in required_parts(campaign, recipe) if part.part.startswith("acl_6060/")]
    for split in ("dev", "eval"):
        write_acl(tmp_path / "acl_6060" / split, split, 2)
    assert missing_parts(tmp_path, required) == []
    for split in ("dev", "eval"):
        shutil.rmtree(tmp_path / "acl_6060" / split / "text/txt")
    lacks = tuple(f"text/txt/ACL.6060.*.en-xx.{target}.txt" for target in ("de", "zh"))
    assert [(part.part, part.holds) for part in missing_parts(tmp_path, required)] == [("acl_6060/eval", lacks)]
    for path in (tmp_path / "acl_6060/dev/text/xml").glob("*.zh.xml"):
        path.unlink()
    either = tuple(f"text/{kind}/ACL.6060.*.en-xx.zh.{kind}" for kind in ("txt", "xml"))
    assert missing_parts(tmp_path, required)[0].holds == (" | ".join(either),)


def test_acl_texts_are_needed_in_the_languages_of_the_campaign() -> None:
    campaign = read_campaign("iwslt26")
    french = replace(campaign, pairs=(replace(campaign.pairs[0], name="en-fr", target="fr"),))
    parts = {part.part: part.holds for part in required_parts(french, read_recipe("primary", "iwslt26"))}
    dev = [pattern.partition(" | ")[0] for pattern in parts["acl_6060/dev"]]
    assert "text/txt/ACL.6060.*.en-xx.fr.txt" in dev and not any("en-xx.de" in pattern for pattern in dev)
    assert parts["acl_6060/eval"] == ("text/txt/ACL.6060.*.en-xx.fr.txt",)


def test_a_test_set_is_needed_by_its_file_order_whatever_its_audio(tmp_path: Path) -> None:
    campaign, recipe = read_campaign("iwslt26"), read_recipe("primary", "iwslt26")
    required = [part for part in required_parts(campaign, recipe) if part.part.startswith("testsets/")]
    assert {name for part in required for name in part.holds} == {"FILE_ORDER", "segments.yaml | **/*.yaml | **/*.yml"}
    for part in required:
        (tmp_path / part.part).mkdir(parents=True)
        (tmp_path / part.part / "FILE_ORDER").write_text("talk\n", encoding="utf-8")
        (tmp_path / part.part / "talk.m4a").touch()
    lacks = [(part.part, part.holds) for part in missing_parts(tmp_path, required)]
    assert lacks == [
        (f"testsets/{name}", ("segments.yaml | **/*.yaml | **/*.yml",)) for name in ("BUSINESSNEWS", "CHALLENGEACCENT")
    ]


def sample(**changes: object) -> CorpusOptions:
    """Return the paper's sample in German and Chinese."""
    sources = (
        Source(name="covost2", format="covost2"),
        Source(name="europarl-st", format="europarl-st", utterances={"de": 15000}),
    )
    return CorpusOptions(sources=sources, utterances={"de": 49997, "zh": 34999}, seed=1, **changes)


def test_a_tenth_of_the_sample_is_a_number_in_the_recipe() -> None:
    tenth = sample(scale=0.1).scaled()
    assert tenth.utterances == {"de": 5000, "zh": 3500} and tenth.sources[1].utterances == {"de": 1500}
    assert sample().scaled() == sample()
    least = sample(scale=1e-6).scaled()
    assert least.utterances == {"de": 1, "zh": 1} and least.sources[1].utterances == {"de": 1}
    with pytest.raises(ValueError, match="scale: 0 is not from above 0 to 1000"):
        sample(scale=0)


def test_one_quota_changes_without_the_sources() -> None:
    changed = sample(quotas={"europarl-st": {"de": 7000, "zh": 10}}).scaled()
    assert changed.sources[1].utterances == {"de": 7000, "zh": 10} and changed.utterances == sample().utterances
    with pytest.raises(ValueError, match=r"quotas.europarl: no corpus of that name; did you mean 'europarl-st'"):
        sample(quotas={"europarl": {"de": 7000}})
    with pytest.raises(ValueError, match="the corpora give 50000, corpus.utterances requests 49997"):
        sample(quotas={"europarl-st": {"de": 50000}})


def test_equal_samples_have_one_key_however_they_are_written(tmp_path: Path) -> None:
    campaign, recipe = read_campaign("iwslt26"), read_recipe("primary", "iwslt26")
    scaled = replace(recipe, corpus=replace(recipe.corpus, scale=0.1))
    written = replace(recipe, corpus=scaled.corpus.scaled())
    keys = {System(campaign, each, None, tmp_path).stage("corpus").key for each in (scaled, written)}
    assert len(keys) == 1 and System(campaign, recipe, None, tmp_path).stage("corpus").key not in keys


def test_every_corpus_needs_the_languages_that_are_taken_from_it() -> None:
    corpus = read_recipe("eleven-languages", "iwslt26").corpus
    covost, europarl = corpus.sources
    assert {language: TABLE_3[language].utterances for language in TABLE_3} == corpus.utterances
    assert needed_languages(corpus, covost) == ["de", "ja", "tr", "zh"]
    assert needed_languages(corpus, europarl) == ["de", "es", "fr", "it", "nl", "pl", "pt", "ro"]
    whole = replace(corpus, sources=(covost, replace(europarl, utterances={"de": 49997})))
    assert needed_languages(whole, covost) == ["ja", "tr", "zh"]
