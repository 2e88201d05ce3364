"""Targets in bytes and moments of a recipe: what follows from them, and which contradict each other."""

from __future__ import annotations

import pytest

from submission.errors import UserError
from submission.store.store import Store
from submission.system.campaign import read_campaign
from submission.system.plan import expected_model
from submission.system.recipe.recipe_files import read_recipe, read_recipes
from submission.system.system import System

BUDGETED = """
extends = "finetuned"
[quantize]
solver = "feedback"
target = "limit"
codecs.linears = { kind = "entropy" }
moments = { pairs = ["en-de"], seed = 1 }
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('target = "limit"\n', "", "quantize.target: missing, and codecs.linears takes a budget of bytes"),
        ('target = "limit"', 'target = "4 gigs"', "target: '4 gigs' is no size"),
        ('target = "limit"', 'target = "as secondary"', "target: 'as secondary' is no size"),
        ('"entropy"', '"affine", bits = 4, group_size = 128', "quantize"),
        ('"feedback"', '"hqq"', "'hqq' finds no codes for entropy"),
        ('["en-de"]', '["en-dd"]', "quantize.moments.pairs: the campaign has no pair 'en-dd'; did you mean 'en-de'"),
        ("seed = 1", "seed = 1, utterances = 100", "100 do not determine second moments; write at least 128"),
        ("seed = 1", "seed = 1, gradient_utterances = 0", "gradient_utterances: 0 is not positive"),
        ("seed = 1", "seed = 1, gradient_utterances = 300", "gradient_utterances: 300 of 256 utterances"),
        ("seed = 1", 'seed = 1, source = "eval"', "expected 'train' or 'dev'"),
        (
            "moments =",
            'awq = { pairs = ["en-de"], targets = false, utterances = 0, seed = 1 }\nmoments =',
            "quantize.awq",
        ),
        (
            "moments =",
            'overrides = [{ role = "mlp", layers = "first", count = "fit", codec = { kind = "entropy" } }]\nmoments =',
            "the target decides both",
        ),
    ],
)
def test_targets_moments_and_codecs_that_contradict_each_other_are_refused(tmp_path, old, new, message):
    assert old in BUDGETED
    (tmp_path / "mine.toml").write_text(BUDGETED.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        recipe = read_recipe(str(tmp_path / "mine.toml"), "miniature")
        System(read_campaign("miniature"), recipe, None, tmp_path)
    assert message in str(caught.value)


def test_moments_belong_to_solvers_that_read_them(tmp_path):
    text = 'extends = "finetuned"\n[quantize]\nmoments = { pairs = ["en-de"], seed = 1 }\n'
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"quantize.moments: solver 'hqq' does not read them"):
        System(read_campaign("miniature"), read_recipe(str(tmp_path / "mine.toml"), "miniature"), None, tmp_path)


@pytest.mark.parametrize(
    ("target", "expected"),
    [("limit", 1_752_000), ("1.5 MB", 1_500_000), ("1 MiB", 1 << 20), ("as primary", 1_745_404)],
)
@pytest.mark.parametrize("calibrated", [True, False])
def test_a_target_is_bytes_before_any_work(tmp_path, target, expected, calibrated):
    text = BUDGETED.replace('"limit"', f'"{target}"')
    if not calibrated:
        text = "\n".join(line for line in text.splitlines() if not line.startswith("moments"))
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    recipe = read_recipe(str(tmp_path / "mine.toml"), "miniature")
    system = System(read_campaign("miniature"), recipe, None, tmp_path)
    assert system.stage("allocate").options["target_bytes"] == expected
    names = [stage.name for stage in system.stages()]
    assert ("calibrate" in names) == calibrated
    assert set(system.stage("quantize").inputs) == {"merge", "allocate", *(["calibrate"] if calibrated else [])}
    forecast = expected_model(system, Store(root=tmp_path / "store"))
    assert forecast.provisional and expected - 512 < forecast.total_bytes <= expected


@pytest.mark.parametrize("size", ["1.4MB", "1.4 MB"])
def test_a_target_behind_the_name_takes_the_place_of_the_recipes_own(size):
    recipe, own = read_recipe(f"frontier@{size}", "miniature"), read_recipe("frontier", "miniature")
    assert (recipe.name, recipe.quantize.target, own.quantize.target) == ("frontier-1.4mb", "1.4 MB", "as primary")
    assert recipe.finetune == own.finetune and recipe.quantize.codecs == own.quantize.codecs
    assert read_recipe(f"ablation:entropy@{size}", "miniature").quantize == recipe.quantize


def test_a_target_behind_a_name_is_refused_where_it_means_nothing(tmp_path):
    with pytest.raises(UserError, match=r"frontier.toml@3 XB .*'3 XB' is no size"):
        read_recipe("frontier@3XB", "miniature")
    with pytest.raises(UserError, match=r"recipe ablation@3GB: is a list.*name one, ablation:bf16@3GB"):
        read_recipes("ablation@3GB", "miniature")
    with pytest.raises(UserError, match=r"primary-3gb: quantize.target: no codec takes a budget"):
        System(read_campaign("miniature"), read_recipe("primary@3GB", "miniature"), None, tmp_path)


@pytest.mark.parametrize("size", ["", "1600", "1,6MB", "-3MB", "1e3GB", "NaNGB"])
def test_what_is_no_size_behind_a_name_is_no_name_of_another_recipe(size):
    with pytest.raises(UserError, match=f"recipe frontier@{size}: '{size}' behind the @ is no size; .* frontier@2.5GB"):
        read_recipe(f"frontier@{size}", "miniature")


def test_a_path_may_hold_the_sign_of_a_target(tmp_path):
    folder = tmp_path / "me@work"
    folder.mkdir()
    (folder / "mine.toml").write_text('extends = "frontier"\n', encoding="utf-8")
    assert read_recipe(str(folder / "mine.toml"), "miniature").quantize.target == "as primary"
    assert read_recipe(f"{folder / 'mine.toml'}@1400kB", "miniature").quantize.target == "1400 kB"
