"""The summary of a build: its text, line by line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from submission.bundle.checks import Finding
from submission.bundle.summary import summary
from submission.store.records import StageUse
from submission.system.campaign import read_campaign

FINDING = Finding(code="TXT10", severity="warning", path="en-de/ACL.txt", what="line 3: blank", fix="Look.")


def journal() -> list[StageUse]:
    use = {"part": "", "key": "k", "status": "built", "seconds": 10.0, "peak_bytes": 512 << 20, "bytes": 1_000_000}
    decode = {**use, "stage": "decode", "seconds": 1.5}
    uses = (
        {**use, "stage": "finetune"},
        {**decode, "part": "en-de/ACL"},
        {**decode, "part": "en-de/ACL6060", "status": "cached", "seconds": 0.01, "peak_bytes": 8 << 30},
    )
    return [StageUse(**each) for each in uses]


def scores() -> dict:
    base = {"pair": "en-de", "testset": "ACL", "signature": "s"}
    flags = {"blank": 2, "clipped": 0}
    return {
        "scores": [{**base, "metric": "BLEU", "value": 24.3456}, {**base, "metric": "chrF", "value": 52.0}],
        "testsets": [
            {"pair": "en-de", "testset": "ACL", "segments": 1234, "flags": flags, "note": ""},
            {"pair": "en-de", "testset": "YOUTUBE", "segments": 7, "flags": flags, "note": "not scored: no references"},
        ],
    }


@pytest.fixture
def given(ingredients, pristine) -> dict:
    return {
        "campaign": ingredients.campaign,
        "recipe": ingredients.recipe,
        "requested": "primary",
        "scores": scores(),
        "journal": journal(),
        "seconds": 412.3,
        "bundle": pristine.relative_to(pristine.parents[1]),
        "findings": [],
    }


def test_the_size_is_shown_in_all_units_against_the_limit(given, pristine):
    given = given | {"bundle": pristine}
    lines = summary(**given).splitlines()
    (size,) = [line.split() for line in lines if "packed model" in line]
    count = sum(path.stat().st_size for path in (pristine / "model").iterdir())
    assert size == ["packed", "model", f"{count:,}", f"{count / 10**9:.6f}", f"{count / 2**30:.6f}"]
    tight = replace(given["campaign"], size_limit="20 kB")
    over = summary(**given | {"campaign": tight}).splitlines()
    more = count - 20_000
    assert ["over", f"{more:,}", f"{more / 10**9:.6f}", f"{more / 2**30:.6f}"] in [line.split() for line in over]
    assert any(line.endswith("over the limit") for line in over)


def test_without_a_limit_the_size_and_the_front_of_the_bundles_beside_it_are_shown(given, pristine, tmp_path):
    folder = tmp_path / "dist"
    for name, size, value in (("small", 100, 20.0), ("wasteful", 300, 19.0), ("large", 400, 30.0), ("other", 1, 99.0)):
        manifest = {"campaign": {"name": "other" if name == "other" else "miniature"}, "model": {"bytes": size}}
        figure = {"pair": "en-de", "testset": "ACL", "metric": "BLEU", "value": value}
        (folder / name).mkdir(parents=True)
        (folder / name / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        (folder / name / "scores.json").write_text(json.dumps({"scores": [figure]}), encoding="utf-8")
    (folder / "broken").mkdir()
    (folder / "broken" / "manifest.json").write_text("{", encoding="utf-8")
    free = replace(given["campaign"], size_limit=None)
    text = summary(**given | {"campaign": free, "bundle": folder / "large"})
    assert "the campaign states no limit" in text and "limit (" not in text
    rows = [line.split() for line in text.splitlines()]
    assert ["small", "100", "0.000000", "0.000000", "20.0", "on", "the", "front"] in rows
    assert ["wasteful", "300", "0.000000", "0.000000", "19.0", "dominated"] in rows
    assert ["large", "400", "0.000000", "0.000000", "30.0", "on", "the", "front"] in rows
    assert not any(row[:1] in (["other"], ["broken"]) for row in rows)
    assert "Quality against size" not in summary(**given)


def test_every_test_set_is_shown_with_lines_blanks_and_scores(given):
    rows = [line.split() for line in summary(**given).splitlines()]
    assert ["en-de", "ACL", "1,234", "2", "24.3", "52.0", "-", "-"] in rows
    assert ["en-de", "YOUTUBE", "7", "2", "-", "-", "-", "-", "not", "scored:", "no", "references"] in rows


def test_stages_are_shown_with_what_they_cost_and_whether_they_were_cached(given):
    rows = [line.split() for line in summary(**given).splitlines()]
    assert ["finetune", "built", "10.0", "512", "1,000,000"] in rows
    assert ["decode", "1", "built,", "1", "cached", "1.5", "512", "2,000,000"] in rows
    assert ["total", "2", "built,", "1", "cached", "11.5", "512", "3,000,000"] in rows
    assert "Stages" not in summary(**given | {"journal": []})


def test_wall_clock_is_shown_where_it_is_known(given):
    assert "The whole build took 412 s" in summary(**given)
    assert "The whole build took" not in summary(**given | {"seconds": None})


def test_it_says_where_the_bundle_lies_and_what_verify_found(given):
    clean = summary(**given)
    assert f"Bundle: {given['bundle']}\nverify: no findings\n" in clean
    error = replace(FINDING, code="TXT02", severity="error")
    found = summary(**given | {"findings": [error, FINDING]})
    assert "verify: 1 error, 1 warning\n  error TXT02 en-de/ACL.txt: line 3: blank\n" in found
    assert f"python -m submission verify {given['bundle']}" in found


def test_printed_commands_are_words_of_a_shell(given):
    text = summary(**given | {"bundle": Path("dist/my recipe"), "findings": [FINDING]})
    assert "submission verify 'dist/my recipe'\n" in text and "submission preview 'dist/my recipe'\n" in text


def test_the_miniature_says_what_it_is_and_how_to_build_the_competition_system(given):
    text = summary(**given)
    assert "This is the miniature: the scores are those of a tiny model" in text
    assert "nox -s build_primary -- --campaign iwslt26 --data DIR" in text
    assert "miniature" not in summary(**given | {"campaign": read_campaign("iwslt26")}).split("Bundle:")[0]


@pytest.mark.parametrize(
    ("campaign", "requested", "command"),
    [
        ("miniature", "contrastive", "nox -s build_contrastive -- --campaign iwslt26 --data DIR"),
        ("miniature-gemma4", "primary", "nox -s build_primary -- --campaign iwslt27 --data DIR"),
        (
            "miniature-gemma4",
            "frontier@3GB",
            "nox -s build_primary -- --campaign iwslt27 --recipe frontier@3GB --data DIR",
        ),
    ],
)
def test_the_competition_system_is_of_the_same_family_and_recipe(given, campaign, requested, command):
    text = summary(**given | {"campaign": read_campaign(campaign), "requested": requested})
    assert f"\n  {command}\n" in text and text.count("nox -s build") == 1


def test_the_lines_fit_a_hundred_columns_and_are_plain_text(given):
    text = summary(**given | {"findings": [replace(FINDING, severity="error", what="x" * 200)]})
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text and all(line == line.rstrip() for line in text.splitlines())
