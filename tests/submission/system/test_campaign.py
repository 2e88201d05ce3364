"""Campaigns: the shipped ones are the track's, one may state no limit, and what is wrong is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from submission.errors import UserError
from submission.system.campaign import FOLDER as CAMPAIGNS
from submission.system.campaign import read_campaign, size_bytes
from submission.system.recipe.recipe_files import read_recipe
from submission.system.system import System


def test_size_is_read_with_its_unit():
    assert size_bytes("4 GiB") == 4 * 2**30
    assert size_bytes("4 GB") == 4 * 10**9
    for wrong in ("4", "4 gb", "GB", "-4 GB", "4 GB or so"):
        with pytest.raises(ValueError, match="expected a number and a unit"):
            size_bytes(wrong)


def test_real_campaign_is_the_tracks():
    campaign = read_campaign("iwslt26")
    assert campaign.size_limit_bytes == 4 * 2**30
    assert {p.name: len(p.testsets) for p in campaign.pairs} == {"en-de": 6, "en-zh": 5}
    assert campaign.naming.format(team="KIT", pair="en-de", condition="constrained", kind="primary") == (
        "KIT_IWSLT26_ModelCompression_en-de_constrained_primary"
    )


def campaign_without_limit(folder):
    text = (CAMPAIGNS / "miniature.toml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("size_limit")]
    (folder / "free.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_campaign(str(folder / "free.toml"))


def test_a_campaign_may_state_no_limit(tmp_path):
    campaign = campaign_without_limit(tmp_path)
    assert campaign.size_limit is None and campaign.size_limit_bytes is None and campaign.meets_limit(10**15)
    assert System(campaign, read_recipe("frontier@2MB", "miniature"), None, tmp_path).stages()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'extends = "primary"\n',
            'quantize.overrides: count: "fit" needs a size limit, and campaign miniature states none',
        ),
        (
            'extends = "frontier"\n[quantize]\ntarget = "limit"\n',
            "quantize.target: 'limit' needs a size limit, and campaign miniature states none",
        ),
    ],
)
def test_a_recipe_that_is_fitted_to_a_limit_is_refused_without_one(tmp_path, text, message):
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        System(campaign_without_limit(tmp_path), read_recipe(str(tmp_path / "mine.toml"), "miniature"), None, tmp_path)


@pytest.mark.parametrize(("limit", "ranks"), [("1752 kB", True), ("4 MB", False)])
def test_layers_are_ranked_only_where_the_limit_asks_for_any(tmp_path, limit, ranks):
    campaign = replace(read_campaign("miniature"), size_limit=limit)
    system = System(campaign, read_recipe("primary", "miniature"), None, tmp_path)
    assert system.ranks_layers == ranks
    assert any(stage.name == "sensitivity" for stage in system.stages()) == ranks
    assert ("sensitivity" in system.stage("quantize").inputs) == ranks


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('size_limit = "4 GiB"', 'size_limit = "4"', "expected a number and a unit"),
        ("{target_language}", "{language}", "prompt: expected the fields"),
        ('testsets = ["ACL", "TVSERIES", "CALLCENTER"', 'testsets = ["ACL", "TV", "CALLCENTER"', "unknown test sets"),
        ('name = "TVSERIES"', 'name = "ACL"', "a name occurs twice"),
        ('segmentation = "free"', 'segmentation = "fre"', "did you mean 'free'"),
    ],
)
def test_wrong_campaign_is_refused(tmp_path, old, new, message):
    text = (CAMPAIGNS / "iwslt26.toml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "mine.toml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(UserError, match="campaign mine.toml") as caught:
        read_campaign(str(tmp_path / "mine.toml"))
    assert message in str(caught.value)
