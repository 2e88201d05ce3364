"""What a report reads out of forecasts, recipes and score.json."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from evaluate.report.measure import by_family, calibration, changed_layers, outcome_of
from evaluate.scoring.score import TestSetScores, TestSetSummary
from submission.cli import add_system_arguments, open_system
from submission.model.families import tensors
from submission.model.forecast import Forecast
from submission.system.plan import expected_model
from submission.system.system import System
from tests.evaluate.synthetic import metric_score


def forecast_of(campaign: str, store_root: Path, recipe: str = "primary") -> tuple[System, Forecast]:
    parser = argparse.ArgumentParser()
    add_system_arguments(parser)
    arguments = ["--campaign", campaign, "--recipe", recipe, "--store", str(store_root)]
    system, store = open_system(parser.parse_args(arguments))
    return system, expected_model(system, store)


@pytest.fixture
def primary(tmp_path) -> tuple[System, Forecast]:
    """Return the competition's primary system and its forecast, with the layers not yet ranked."""
    return forecast_of("iwslt26", tmp_path)


def test_the_families_of_roles_hold_every_byte(primary):
    _, cast = primary
    families = by_family(cast)
    assert sum(families.values()) == cast.total_bytes
    assert next(iter(families)) == "mlp" and families["mlp"] > families["attn"] > families["lm_head"] > 0


@pytest.mark.parametrize("recipe", ["primary", "ablation:bf16"])
def test_a_tied_embedding_is_one_group_with_the_head_and_counts_once(tmp_path, recipe):
    _, cast = forecast_of("iwslt27", tmp_path, recipe)
    families = by_family(cast)
    (embedding,) = (role.size_bytes for role in cast.roles if role.role == "embedding")
    assert families["embedding and head"] == embedding
    assert not {"embedding", "lm_head", "audio"} & set(families) and "vision" not in families
    assert sum(families.values()) == cast.total_bytes


def test_a_part_that_can_be_left_out_is_a_group_of_its_own_where_it_stays(tmp_path):
    """The miniature's vision embedder, which its recipes keep."""
    _, cast = forecast_of("miniature-gemma4", tmp_path)
    assert by_family(cast)["vision"] == sum(r.size_bytes for r in cast.roles if r.role.startswith("vision.")) > 0


def test_chosen_layers_are_those_in_which_every_weight_has_the_coarser_codec(primary):
    system, cast = primary
    override = system.recipe.quantize.ranked
    assert changed_layers(tensors(cast.config), cast.codecs, override.role, override.codec) == {0, 1}
    up = "language_model.model.layers.0.mlp.up_proj.weight"
    assert up in cast.codecs
    mixed = cast.codecs | {up: cast.codecs[up.replace("layers.0", "layers.5")]}
    assert changed_layers(tensors(cast.config), mixed, override.role, override.codec) == {1}


def test_a_calibration_set_is_named_as_in_the_paper(primary):
    system, _ = primary
    assert calibration(system.recipe.quantize) == "source only (en-de, en-zh)"


@pytest.mark.parametrize(
    ("note", "comet", "missing"),
    [
        ("not scored: no references", "no references", "not computed: no references"),
        ("", "no source transcript", "not computed: no source transcript"),
    ],
)
def test_a_score_json_says_why_a_figure_is_missing(note, comet, missing):
    summary = TestSetSummary(
        testset="ACL",
        pair="en-de",
        segments=2,
        flags={"blank": 1},
        flags_without_fallbacks={"blank": 1},
        fallbacks={},
        references=2,
        note=note,
        comet=comet,
    )
    bleu = metric_score("BLEU", value=1.5, low=1.0, high=2.0)
    outcome = outcome_of(TestSetScores(scores=[bleu], summary=summary, lines=[]), None, {})
    assert outcome.missing == missing and outcome.blank == 1
    assert (outcome.scores["BLEU"].low, outcome.scores["BLEU"].high) == (1.0, 2.0)
