"""Which codecs of a packed model contradict a recipe, and which it can have given."""

from __future__ import annotations

from pathlib import Path

import pytest

from submission.errors import UserError
from submission.model.codecs import Affine
from submission.model.codecs.entropy.codec import Entropy
from submission.model.families import read_config, shipped_config
from submission.model.forecast import resolve_codecs
from submission.model.resolved_codecs import contradictions
from submission.system.campaign import read_campaign
from submission.system.data_folder import shipped_models
from submission.system.recipe.quantize_options import Override
from submission.system.recipe.recipe_files import read_recipes

CAMPAIGNS = ("miniature", "miniature-gemma4", "iwslt26", "iwslt27")
RECIPES = sorted(path.stem for path in (Path(__file__).parents[3] / "submission" / "recipes").glob("*.toml"))
CONFIG = shipped_config("Qwen2-Audio-7B")
assert CONFIG is not None
FOUR, THREE = Affine(bits=4, group_size=128), Affine(bits=3, group_size=128)
RULES = {"*": FOUR}


def layers_of(layers, count="all", role="mlp", codec=THREE, seed=None) -> Override:
    return Override(role=role, layers=layers, count=count, codec=codec, seed=seed)


def said(overrides, packed_with, rules=RULES) -> list[str]:
    """Return what is found where a model was packed with other overrides than its recipe has."""
    return list(contradictions(CONFIG, resolve_codecs(CONFIG, rules, packed_with), rules, overrides))


def base_config(campaign: str) -> dict:
    model = read_campaign(campaign).model
    return shipped_config(model.name) or read_config(shipped_models(read_campaign(campaign))["base"])


@pytest.mark.parametrize(
    ("campaign", "name"),
    # Of the ablation one system packs the head, which Gemma has none of its own of.
    [(c, r) for c in CAMPAIGNS for r in RECIPES if (c in ("miniature", "iwslt26") or r != "ablation")],
)
def test_what_a_recipe_packs_contradicts_it_nowhere(campaign, name):
    config, limit = base_config(campaign), read_campaign(campaign).size_limit_bytes or 8 << 30
    for recipe in read_recipes(name, campaign):
        rules, overrides = recipe.quantize.codecs, recipe.quantize.overrides
        held = resolve_codecs(config, rules, overrides, limit_bytes=limit)
        assert list(contradictions(config, held, rules, overrides)) == []


@pytest.mark.parametrize(
    ("asked", "packed_with"),
    [
        (layers_of("sensitivity", 3), layers_of((4, 17, 30))),
        (layers_of("sensitivity", "fit"), layers_of((0, 31))),
        (layers_of("middle", "fit"), layers_of((14, 15, 16, 17))),
        (layers_of("random", 5, seed=2), layers_of("random", 5, seed=2)),
        (layers_of("last", 2), layers_of((30, 31))),
        (layers_of("sensitivity", 32), layers_of(tuple(range(32)))),
    ],
)
def test_layers_that_a_ranking_or_a_limit_chose_are_possible(asked, packed_with):
    assert said([asked], [packed_with]) == []


def test_no_layer_need_have_been_changed_to_meet_a_limit():
    assert said([layers_of("sensitivity", "fit")], []) == [] == said([layers_of("first", "fit")], [])


@pytest.mark.parametrize(
    ("asked", "packed_with", "what"),
    [
        (layers_of("sensitivity", 3), layers_of((4, 17)), "found in 2 layers, and the recipe gives it to 3"),
        (layers_of("sensitivity", 1), layers_of((4, 17)), "found in 2 layers, and the recipe gives it to 1"),
        (
            layers_of("first", "fit"),
            layers_of((0, 2)),
            "found in layers 0, 2, and the recipe gives it to the first ones",
        ),
        (layers_of("sensitivity", "fit"), layers_of((4,), role="mlp.up"), "layer 4 mixes codecs"),
        (layers_of("first", 2), layers_of((0, 3)), "of layer 1 is affine4g128, and the recipe gives affine3g128"),
        (layers_of("random", 5, seed=2), layers_of("random", 5, seed=3), "and the recipe gives"),
        (
            layers_of("sensitivity", "fit"),
            layers_of((4,), role="attn"),
            "is affine3g128, and the recipe gives affine4g128",
        ),
    ],
)
def test_other_layers_than_the_recipe_can_give_are_said(asked, packed_with, what):
    assert what in "\n".join(said([asked], [packed_with]))


def test_a_layer_that_another_override_covers_counts_either_way():
    """Layers 0 to 3 have four bits whether they were chosen or not, so any number of the three may lie there."""
    covered = layers_of((0, 1, 2, 3), codec=FOUR)
    asked = [layers_of("sensitivity", 3), covered]
    for chosen in ((0, 1, 9), (7, 8, 9), (0, 1, 2)):
        assert said(asked, [layers_of(chosen), covered]) == []
    assert said(asked, [layers_of((7, 8, 9, 10)), covered])


def test_one_part_that_has_the_codec_anyway_does_not_tell_the_layers():
    rules = {"*": FOUR, "mlp.down": THREE}
    assert said([layers_of("sensitivity", 2)], [layers_of((3, 5))], rules) == []
    assert said([layers_of("sensitivity", 2)], [layers_of((3, 5, 6))], rules)


def test_a_ranking_and_a_limit_may_choose_in_one_model():
    asked = [layers_of("sensitivity", 3), layers_of("last", "fit", role="attn")]
    assert said(asked, [layers_of((4, 17, 30)), layers_of((30, 31), role="attn")]) == []
    assert said(asked, [layers_of((4, 17, 30)), layers_of((0, 31), role="attn")])


def test_budgets_are_no_contradiction():
    rules = {"linears": Entropy()}
    names = resolve_codecs(CONFIG, rules)
    held = resolve_codecs(CONFIG, rules, budgets=dict.fromkeys(names, 1_000_000))
    assert held != names and list(contradictions(CONFIG, held, rules, [])) == []
    assert list(contradictions(CONFIG, held, {"linears": Entropy(trellis=True)}, []))


def test_two_overrides_by_the_limit_are_refused():
    with pytest.raises(UserError, match="more than one"):
        list(contradictions(CONFIG, {}, RULES, [layers_of("first", "fit"), layers_of("last", "fit", role="attn")]))
