"""Recipes: what is right is read, what is wrong is refused by file, key and nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from submission.errors import UserError
from submission.miniature.dataset import DEV
from submission.system.campaign import FOLDER as CAMPAIGNS
from submission.system.campaign import read_campaign
from submission.system.recipe.recipe_files import FOLDER as RECIPES
from submission.system.recipe.recipe_files import read_recipe, read_recipes
from submission.system.recipe.training_options import Source
from submission.system.system import System

PRIMARY = (RECIPES / "primary.toml").read_text(encoding="utf-8")
EXTENDED = ("contrastive", "finetuned")


def refused(tmp_path: Path, old: str, new: str, campaign: str = "miniature") -> str:
    """Return the message that the primary recipe is refused with after one change, in it or in what it extends."""
    chain = {name: (RECIPES / f"{name}.toml").read_text(encoding="utf-8") for name in ("primary", *EXTENDED)}
    changed = next(name for name, text in chain.items() if old in text)
    chain[changed] = chain[changed].replace(old, new, 1)
    for name, text in chain.items():
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
    path = (tmp_path / "primary.toml").rename(tmp_path / "mine.toml")
    with pytest.raises(UserError) as caught:
        System(read_campaign(campaign), read_recipe(str(path), campaign), None, tmp_path)
    return str(caught.value)


# What a campaign refuses by name: one without a limit, of a model whose head is tied to the embedding.
NOT_APPLICABLE = {
    "iwslt27": lambda q: "lm_head" in q.codecs or any(o.count == "fit" for o in q.overrides),
    "miniature-gemma4": lambda q: "lm_head" in q.codecs,
}


def applicable(recipes, campaign):
    refused = NOT_APPLICABLE.get(campaign, lambda quantize: False)
    return [recipe for recipe in recipes if not refused(recipe.quantize)]


@pytest.mark.parametrize("campaign", sorted(p.stem for p in CAMPAIGNS.glob("*.toml")))
@pytest.mark.parametrize("name", sorted(p.stem for p in RECIPES.glob("*.toml")))
def test_every_shipped_recipe_runs_on_every_shipped_campaign(campaign, name, tmp_path):
    for recipe in applicable(read_recipes(name, campaign), campaign):
        assert System(read_campaign(campaign), recipe, None, tmp_path).stages()[-1].name == "score"


def test_one_of_a_list_is_read_by_its_name():
    listed = {recipe.name: recipe for recipe in read_recipes("ablation", "miniature")}
    assert read_recipe("ablation:emb2", "miniature") == listed["emb2"]
    assert listed["emb2"].quantize.codecs["linears"] == listed["4bit"].quantize.codecs["linears"]
    assert listed["bf16"].quantize.codecs == {}


def test_the_ablation_holds_the_uploaded_systems():
    """So that the report shows them among the others, on every campaign."""
    for campaign in sorted(path.stem for path in CAMPAIGNS.glob("*.toml")):
        for name, listed in (("primary", "awq-source-all"), ("contrastive", "sensitive")):
            ours, theirs = read_recipe(name, campaign), read_recipe(f"ablation:{listed}", campaign)
            assert ours.quantize == theirs.quantize, (campaign, name)


def test_no_system_of_a_miniature_is_calibrated_on_more_dev_utterances_than_it_has():
    available = sum(session.lines for session in DEV)
    for campaign in ("miniature", "miniature-gemma4"):
        for recipe in read_recipes("ablation", campaign):
            assert recipe.quantize.awq is None or recipe.quantize.awq.utterances <= available, recipe.name


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ('[[systems]]\nname = "a"\nextends = "primary"\n', "", "is a list of 1 recipes; name one, mine:a"),
        ('[[systems]]\nname = "abc"\n', ":abd", "has no system 'abd'; did you mean 'abc'"),
        ('[[systems]]\nname = "a"\n[[systems]]\nname = "a"\n', ":a", "two of them have one name"),
        ("[[systems]]\nnam = 3\n", ":a", "each with a name"),
        ('systems = "all"\n', ":a", "expected a list of tables"),
        ('[[systems]]\nname = "a"\nextends = "b"\n[[systems]]\nname = "b"\nextends = "a"\n', ":a", "a -> b -> a"),
        ('extends = "primary"\n[[systems]]\nname = "a"\ndecode.beams = 2\n', ":a", "decode.beams: unknown key"),
    ],
)
def test_mistakes_in_a_list_are_refused(tmp_path, text, name, message):
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_recipe(f"{tmp_path / 'mine.toml'}{name}", "miniature")
    assert message in str(caught.value)


@pytest.mark.parametrize("place", ["../elsewhere", "/etc", "a/../../b"])
def test_a_corpus_never_lies_outside_the_data_folder(tmp_path, place):
    change = f'format = "covost2", folder = "{place}"'
    assert "leaves the data folder" in refused(tmp_path, 'format = "covost2"', change, "iwslt26")


@pytest.mark.parametrize("place", ["acl_6060/eval", "acl_6060//eval/", "testsets/ACL", "./references/ACL"])
def test_what_is_tested_on_is_never_trained_on(tmp_path, place):
    change = f'format = "covost2", folder = "{place}"'
    assert "holds what the system is tested on" in refused(tmp_path, 'format = "covost2"', change, "iwslt26")


def test_a_folder_has_one_spelling():
    spellings = ("acl_6060/dev", "./acl_6060/dev", "acl_6060//dev/")
    assert {Source(name="dev", format="acl6060", folder=folder).part for folder in spellings} == {"acl_6060/dev"}


def test_a_pair_that_the_campaign_lacks_cannot_calibrate(tmp_path):
    message = refused(tmp_path, 'pairs = ["en-de", "en-zh"]', 'pairs = ["en-dd"]')
    assert "quantize.awq.pairs" in message and "did you mean 'en-de'" in message


def test_unknown_key_names_file_key_and_nearest(tmp_path):
    message = refused(tmp_path, "alpha = 128", "alhpa = 128")
    assert "recipe mine.toml" in message
    assert "finetune.alhpa: unknown key" in message
    assert "did you mean 'alpha'" in message


def test_missing_key_is_named(tmp_path):
    assert "finetune.rank: missing" in refused(tmp_path, "rank = 64\n", "")


def test_wrong_type_says_expected_and_got(tmp_path):
    message = refused(tmp_path, "rank = 64", 'rank = "64"')
    assert "finetune.rank: expected a whole number, got str '64'" in message


def test_true_is_no_number(tmp_path):
    assert "expected a whole number, got bool True" in refused(tmp_path, "rank = 64", "rank = true")


def test_not_a_number_is_refused(tmp_path):
    assert "finetune.warmup_ratio" in refused(tmp_path, "warmup_ratio = 0.03", "warmup_ratio = nan")


def test_impossible_value_names_the_field(tmp_path):
    assert "warmup_ratio: 1.5 is no share" in refused(tmp_path, "warmup_ratio = 0.03", "warmup_ratio = 1.5")


def test_codec_width_that_nothing_implements_is_refused(tmp_path):
    assert "bits: 7" in refused(tmp_path, "bits = 4,", "bits = 7,")


def test_unknown_solver_names_the_known(tmp_path):
    message = refused(tmp_path, 'solver = "hqq"', 'solver = "hhq"')
    assert "quantize.solver" in message and "did you mean 'hqq'" in message


def test_unknown_role_names_the_nearest(tmp_path):
    message = refused(tmp_path, "embedding = {", "embeding = {")
    assert "unknown role 'embeding'" in message and "did you mean 'embedding'" in message


def test_layers_by_method_need_a_count(tmp_path):
    message = refused(tmp_path, 'count = "fit"\n', "")
    assert "quantize.overrides[0]" in message and "needs a count" in message


def test_segments_longer_than_the_encoder_window_are_refused(tmp_path):
    assert "9" in refused(tmp_path, "max_seconds = 4.8", "max_seconds = 9")


def test_mistake_in_another_campaigns_table_is_found_today(tmp_path):
    text = PRIMARY + "\n[campaign.iwslt26.decode]\nbatchsize = 3\n"
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="decode.batchsize: unknown key; did you mean 'batch_size'"):
        read_recipe(str(tmp_path / "mine.toml"), "miniature")


def test_extending_in_a_circle_is_refused(tmp_path):
    for one, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"{one}.toml").write_text(f'extends = "{other}"\n', encoding="utf-8")
    with pytest.raises(UserError, match="a -> b -> a"):
        read_recipe(str(tmp_path / "a.toml"), "miniature")


def test_child_beats_parent_and_campaign_beats_both(tmp_path):
    child = 'extends = "primary"\n[decode]\nbatch_size = 5\nnum_beams = 2\n[campaign.miniature.decode]\nnum_beams = 3\n'
    (tmp_path / "child.toml").write_text(child, encoding="utf-8")
    decode = read_recipe(str(tmp_path / "child.toml"), "miniature").decode
    assert (decode.batch_size, decode.num_beams, decode.max_new_tokens) == (5, 3, 64)
    assert read_recipe(str(tmp_path / "child.toml"), "iwslt26").decode.num_beams == 2


def test_unknown_recipe_name_lists_the_known():
    with pytest.raises(UserError, match="did you mean 'primary'"):
        read_recipe("primray", "miniature")


def test_broken_toml_is_named(tmp_path):
    (tmp_path / "mine.toml").write_text("upload = [", encoding="utf-8")
    with pytest.raises(UserError, match="is not TOML"):
        read_recipe(str(tmp_path / "mine.toml"), "miniature")


def test_table_for_a_campaign_that_nobody_knows_is_refused(tmp_path):
    (tmp_path / "mine.toml").write_text(PRIMARY + "\n[campaign.minature.decode]\nnum_beams = 3\n", encoding="utf-8")
    with pytest.raises(UserError, match="campaign.minature: unknown campaign; did you mean 'miniature'"):
        read_recipe(str(tmp_path / "mine.toml"), "miniature")


def test_campaign_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "mine.toml").write_text('extends = "primary"\ncampaign = 3\n', encoding="utf-8")
    with pytest.raises(UserError, match="expected tables by campaign"):
        read_recipe(str(tmp_path / "mine.toml"), "miniature")


def test_own_recipe_may_have_the_name_of_the_shipped_one_that_it_extends(tmp_path):
    (tmp_path / "primary.toml").write_text('extends = "primary"\n[decode]\nnum_beams = 4\n', encoding="utf-8")
    assert read_recipe(str(tmp_path / "primary.toml"), "iwslt26").decode.num_beams == 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('team = "DIETKIT"', 'team = "my team/1"', "use letters, digits and hyphens only"),
        ("save_every_steps = 2000", "save_every_steps = 1999", "no multiple of log_every_steps 10"),
        ('condition = "unconstrained"', 'condition = "constrained"', "ACL 60/60 alone"),
        ('format = "covost2"', 'format = "covst2"', "did you mean 'covost2'"),
        ("max_new_tokens = 256", "max_new_tokens = 1025", "max_new_tokens: 1025 is beyond 1024"),
        ("num_beams = 1", "num_beams = 65", "num_beams: 65 is beyond 64"),
    ],
)
def test_mistakes_that_would_cost_the_upload_are_refused_at_once(tmp_path, old, new, message):
    assert message in refused(tmp_path, old, new, "iwslt26")


RECOVERY = """
extends = "primary"
[quantize]
recovery = { pairs = ["en-de"], utterances = 64, steps = 10, batch_size = 4, learning_rate = 0.003, seed = 1 }
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["en-de"]', '["en-dd"]', "quantize.recovery.pairs: the campaign has no pair 'en-dd'; did you mean 'en-de'"),
        ('["en-de"]', "[]", "pairs: empty"),
        ("steps = 10", "steps = 0", "steps: 0 is not positive"),
        ("learning_rate = 0.003", "learning_rate = 1.5", "learning_rate: 1.5 is no relative change"),
        ("utterances = 64", "utterances = 8", "leaves less than two held out; write at least 16, or 0"),
        ('"primary"', '"finetuned"', "quantize.recovery: nothing is packed, so there is nothing to recover"),
    ],
)
def test_mistakes_in_recovery_are_refused(tmp_path, old, new, message):
    assert old in RECOVERY
    (tmp_path / "mine.toml").write_text(RECOVERY.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        recipe = read_recipe(str(tmp_path / "mine.toml"), "miniature")
        System(read_campaign("miniature"), recipe, None, tmp_path)
    assert message in str(caught.value)


def test_the_recovered_model_is_the_one_that_is_decoded_and_the_packed_one_is_shared(tmp_path):
    (tmp_path / "mine.toml").write_text(RECOVERY, encoding="utf-8")
    campaign = read_campaign("miniature")
    plain = System(campaign, read_recipe("primary", "miniature"), None, tmp_path)
    system = System(campaign, read_recipe(str(tmp_path / "mine.toml"), "miniature"), None, tmp_path)
    assert system.stage("quantize").key == plain.stage("quantize").key
    assert plain.model_stage().name == "quantize" and system.model_stage().name == "recover"
    for one in (plain, system):
        decodes = [stage for stage in one.stages() if stage.name == "decode"]
        for stage in (*decodes, one.loss_stage()):
            assert stage.inputs["model"].digest == one.model_stage().key
    assert set(system.stage("recover").inputs) == {"quantize", "merge", "corpus", "data"}
