"""The model card: what the hub reads of it, that it holds its folder's size, and that it always has as many bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from submission.bundle.description import Facts
from submission.bundle.model_card import render_model_card
from submission.model.forecast import CARD_BYTES
from submission.model.sizes import size_text
from submission.store.digests import files_below
from submission.system.campaign import read_campaign
from submission.system.recipe.recipe_files import read_recipe

FACTS = Facts(
    size_bytes=4_000_000_000,
    parameters=8_000_000_000,
    techniques=("codes of 4 bits", "fine-tuning"),
    data_sets=("CoVoST 2 (training)",),
    names={},
)


def card(facts: Facts = FACTS, campaign: str = "iwslt26", scores=(), **changes) -> str:
    recipe = replace(read_recipe("primary", campaign), **changes)
    return render_model_card(facts, read_campaign(campaign), recipe, list(scores))


def front_matter(text: str) -> dict:
    _, head, body = text.split("---\n", 2)
    assert body.startswith("\n# ")
    return yaml.safe_load(head)


def test_the_hub_reads_base_model_licence_languages_and_task():
    found = front_matter(card())
    assert found["base_model"] == "Qwen/Qwen2-Audio-7B" and found["base_model_relation"] == "quantized"
    assert found["language"] == ["en", "de", "zh"] and found["pipeline_tag"] == "audio-text-to-text"
    assert found["license"] == "other" and found["license_link"].endswith("/Qwen/Qwen2-Audio-7B")
    made_here = front_matter(card(campaign="miniature"))
    assert "base_model" not in made_here and made_here["license"] == "apache-2.0"


def test_the_card_of_a_bundle_states_the_size_of_the_folder_that_it_lies_in(pristine):
    text = (pristine / "model" / "README.md").read_text(encoding="utf-8")
    size = sum(path.stat().st_size for path in files_below(pristine / "model"))
    assert f"size: {size_text(size)}" in text and len(text.encode()) == CARD_BYTES
    assert "- en-de ACL: BLEU 31.5, chrF 52.2" in text and "HQQ quantization to 3 bits" in text


@given(
    st.lists(st.text(max_size=1_500), max_size=30),
    st.lists(st.text(max_size=300), max_size=30),
    st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/\\.-"), min_size=1, max_size=200),
    st.integers(0, 10**15),
)
def test_every_card_has_as_many_bytes_whatever_a_recipe_says(techniques, data_sets, name, size):
    facts = replace(FACTS, techniques=tuple(techniques), data_sets=tuple(data_sets), size_bytes=size)
    text = card(facts, name=name)
    assert len(text.encode()) == CARD_BYTES and text.endswith(" -->\n")
    assert front_matter(text)["base_model"] == "Qwen/Qwen2-Audio-7B"
    assert "<script" not in text


def test_what_does_not_fit_is_said_to_be_elsewhere():
    text = card(replace(FACTS, techniques=("x" * 900,) * 9))
    assert "- and more, which the bundle" in text and len(text.encode()) == CARD_BYTES


@pytest.mark.parametrize(
    "records",
    [
        None,
        [1],
        [{"pair": "en-de"}],
        [{"pair": ["a"], "testset": "ACL", "metric": "BLEU", "value": 1}],
        [{"pair": "en-de", "testset": "ACL", "metric": "BLEU", "value": 10**400}],
        [{"pair": "en-de", "testset": "ACL", "metric": "BLEU", "value": "31"}],
        [{"pair": "en-de", "testset": "NONE", "metric": "BLEU", "value": 31.0}],
    ],
)
def test_scores_that_are_none_are_left_out(records):
    text = render_model_card(FACTS, read_campaign("iwslt26"), read_recipe("primary", "iwslt26"), records)
    assert "## Figures" not in text and len(text.encode()) == CARD_BYTES
