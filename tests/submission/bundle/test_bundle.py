"""The bundle: what is in it, that equal inputs give equal bytes, and that nothing half-written looks whole."""

from __future__ import annotations

import argparse
import errno
import json
import os
import resource
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submission.bundle.bundle import add_efficiency
from submission.bundle.checks import verify
from submission.bundle.description import derive_facts, parse_description
from submission.bundle.efficiency import measured_digest, parse_efficiency
from submission.bundle.untrusted.bundle_view import BundleView
from submission.cli import run
from submission.errors import UserError
from submission.model.checkpoint import packed_config
from submission.model.codecs import Affine
from submission.model.families import read_config
from submission.model.forecast import resolve_codecs
from submission.store.digests import describe_files, files_below, tree_digest
from submission.system.recipe.recipe_files import read_recipe
from submission.text.characters import BIDIRECTIONAL, CONTROLS, LINE_BREAKS, plain_line
from tests.submission.bundle.checks.breaking import measured_elsewhere


def errors(bundle: Path) -> list:
    return [f for f in verify(bundle) if f.severity == "error"]


def test_equal_inputs_give_equal_bytes_wherever_they_are_bundled(ingredients, pristine, tmp_path):
    copy = Path(shutil.copytree(ingredients.folder, tmp_path / "elsewhere"))
    moved = ingredients.__class__(folder=copy, campaign=ingredients.campaign, recipe=ingredients.recipe)
    assert tree_digest(moved.bundle(tmp_path / "other" / "name")) == tree_digest(pristine)


def test_measured_speed_stays_with_the_same_model_and_goes_with_a_word_to_the_user_with_another(
    ingredients, tmp_path, capsys
):
    out = ingredients.bundle(tmp_path / "bundle")
    measured_elsewhere(out)
    record = parse_efficiency(json.loads((out / "efficiency.json").read_text(encoding="utf-8")))
    view = BundleView(out, ingredients.campaign)
    digest = measured_digest(view.manifest["files"])
    parts = {"campaign": ingredients.campaign, "recipe": ingredients.recipe, "facts": view.facts}
    add_efficiency(out, view.manifest, replace(record, bundle_sha256=digest), **parts)
    before = tree_digest(out)
    assert errors(out) == [] and "real-time factor" in (out / "description/en-zh.txt").read_text(encoding="utf-8")
    ingredients.bundle(out)
    assert tree_digest(out) == before and "efficiency" not in capsys.readouterr().err
    recipe = read_recipe("contrastive", "miniature")
    quantize = replace(recipe.quantize, codecs=ingredients.recipe.quantize.codecs)
    ingredients.bundle(out, recipe=replace(recipe, quantize=quantize))
    assert not (out / "efficiency.json").exists() and errors(out) == []
    assert "measure again: python -m evaluate efficiency" in capsys.readouterr().err


def test_a_bundle_holds_the_uploaded_test_sets_and_not_the_open_one(pristine, ingredients):
    names = {p.relative_to(pristine).as_posix() for p in files_below(pristine)}
    outputs = {f"{p.name}/{t}.txt" for p in ingredients.campaign.pairs for t in p.testsets}
    assert len(outputs) == 11
    assert names == outputs | {f"segments/{t.name}.yaml" for t in ingredients.campaign.testsets} | {
        "model/README.md",
        "model/chat_template.jinja",
        "model/config.json",
        "model/generation_config.json",
        "model/model.safetensors",
        "model/processor_config.json",
        "model/tokenizer.json",
        "model/tokenizer_config.json",
        "segmenter/config.json",
        "segmenter/model.safetensors",
        "description/en-de.txt",
        "description/en-zh.txt",
        "campaign.json",
        "recipe.json",
        "scores.json",
        "manifest.json",
    }


def test_a_bundle_has_copies_and_no_links(pristine, ingredients):
    assert not any(p.is_symlink() for p in pristine.rglob("*"))
    source, copy = ingredients.folder / "model" / "config.json", pristine / "model" / "config.json"
    assert source.read_bytes() == copy.read_bytes() and not os.path.samefile(source, copy)


def test_a_bundle_says_nothing_of_clock_machine_or_path(pristine, ingredients):
    text = (pristine / "manifest.json").read_text(encoding="utf-8")
    assert str(pristine) not in text and str(ingredients.folder) not in text
    assert json.loads(text).keys() == {
        *("format", "version", "campaign", "recipe", "model", "techniques", "data_sets"),
        *("stages", "inputs", "provenance", "files"),
    }


def test_the_description_is_derived_from_the_artifacts(pristine):
    fields = parse_description((pristine / "description" / "en-zh.txt").read_text(encoding="utf-8"))
    size = sum(p.stat().st_size for p in files_below(pristine / "model"))
    assert fields["Model name"] == ("MINIATURE_MINIATURE_ModelCompression_en-zh_unconstrained_primary",)
    assert fields["Storage size"][0].startswith(f"{size:,} bytes = ")
    assert fields["Number of parameters"] == ("2,886,400",)
    assert fields["Data sets"] == ("talks (training)", "ACL 60/60 dev (ranking of layers, calibration of AWQ)")
    assert any("3 bits" in technique for technique in fields["Compression techniques"])
    assert any("chosen by the change of cross-entropy" in technique for technique in fields["Compression techniques"])


def test_the_description_names_no_choice_of_layers_that_chose_none(ingredients):
    config = read_config(ingredients.folder / "model")
    codecs = resolve_codecs(config, {"*": Affine(bits=4, group_size=128)})
    facts = derive_facts(packed_config(config, codecs), 1, ingredients.campaign, ingredients.recipe)
    assert not [
        technique for technique in facts.techniques if "3" in technique.partition(":")[0] or "chosen" in technique
    ]
    assert facts.data_sets == ("talks (training)", "ACL 60/60 dev (calibration of AWQ)")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("contrastive", ("talks (training)",)),
        ("frontier", ("talks (training, second moments)",)),
        ("constrained", ("acl6060-dev (training)", "ACL 60/60 dev (calibration of AWQ)")),
    ],
)
def test_the_data_sets_are_those_that_training_ranking_and_calibration_read(ingredients, name, expected):
    recipe = read_recipe(name, "miniature")
    config = read_config(ingredients.folder / "model")
    packed = packed_config(config, resolve_codecs(config, {"*": Affine(bits=4, group_size=128)}))
    facts = derive_facts(packed, 1, ingredients.campaign, recipe)
    assert facts.data_sets == expected


@given(st.text(st.sampled_from([*"ab ", *LINE_BREAKS, *CONTROLS, *BIDIRECTIONAL, "\ud800", "ä", "你", "\u3000"])))
def test_a_plain_line_is_one_clean_line(text):
    line = plain_line(text)
    assert line == line.strip() and len(line.splitlines()) <= 1
    assert not set(line) & (LINE_BREAKS | CONTROLS | BIDIRECTIONAL)
    line.encode("utf-8")


def test_outputs_are_cleaned_to_one_line_a_segment(ingredients, tmp_path):
    texts = ["  Guten\r\nTag.\u2028 ", "Das\x00 ist\tein \u202eTest.", "\ufeff \ud800"]
    path = tmp_path / "hypotheses.jsonl"
    ids = [f"talk1.wav/{i:04d}" for i in range(3)]
    lines = [json.dumps({"segment": s, "text": t, "flags": []}) for s, t in zip(ids, texts, strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    hypotheses = {
        (p.name, t): path if (p.name, t) == ("en-de", "ACL") else ingredients.folder / p.name / f"{t}.jsonl"
        for p in ingredients.campaign.pairs
        for t in p.testsets
    }
    out = ingredients.bundle(tmp_path / "dist", hypotheses=hypotheses)
    assert (out / "en-de" / "ACL.txt").read_bytes() == b"Guten  Tag.\nDas  ist ein  Test.\n\n"
    assert errors(out) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hypotheses": {}}, "hypotheses of en-de/ACL are missing"),
        ({"segments": {}}, "segments of ACL are missing"),
        ({"scores": Path("nowhere.json")}, "scores are missing"),
        ({"segmenter": Path("nowhere")}, "segmentation classifier's files are missing"),
    ],
)
def test_what_is_missing_is_named_and_the_good_bundle_stays(ingredients, good, change, message):
    before = tree_digest(good)
    with pytest.raises(UserError, match=message):
        ingredients.bundle(good, **change)
    assert tree_digest(good) == before
    assert [p.name for p in good.parent.iterdir() if p.is_dir()] == [good.name]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"segment": "talk1.wav/0000", "text": "a"}'], "expected 3 hypotheses, one a segment, got 1"),
        ([f'{{"segment": "talk1.wav/000{i}", "text": "a"}}' for i in (0, 2, 1)], "expected segment talk1.wav/0001"),
        (['{"segment": "talk1.wav/0000", "text": 1}'] * 3, "line 1: segment and text must be strings"),
        (["[1]"] * 3, "line 1: is not a hypothesis"),
        (["{"] * 3, "line 1: is not a hypothesis"),
    ],
)
def test_hypotheses_of_other_segments_are_refused(ingredients, tmp_path, lines, message):
    path = tmp_path / "hypotheses.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    keys = [(p.name, t) for p in ingredients.campaign.pairs for t in p.testsets]
    with pytest.raises(UserError, match=message):
        ingredients.bundle(tmp_path / "dist", hypotheses=dict.fromkeys(keys, path))


def test_a_plain_checkpoint_is_no_packed_model(ingredients, tmp_path):
    model = Path(shutil.copytree(ingredients.folder / "model", tmp_path / "model"))
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    del config["quantization_config"]
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError, match="quant_method"):
        ingredients.bundle(tmp_path / "dist", model=model)


def test_what_a_killed_run_left_is_cleared_and_the_bundle_moved_away_comes_back(ingredients, pristine, tmp_path):
    out = tmp_path / "system"
    shutil.copytree(pristine, tmp_path / ".system.replaced")
    (tmp_path / ".system.partial" / "model").mkdir(parents=True)
    (tmp_path / ".system.removed" / "model").mkdir(parents=True)
    with pytest.raises(UserError):
        ingredients.bundle(out, hypotheses={})
    assert tree_digest(out) == tree_digest(pristine)
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == [out.name]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("milliseconds", [2, 5, 10, 20, 40, 60])
def test_a_kill_at_any_moment_leaves_a_whole_bundle_or_none(ingredients, pristine, tmp_path, milliseconds):
    out, expected = tmp_path / "system", tree_digest(pristine)
    for _ in range(2):  # the first into an empty place, the second over what is there
        child = os.fork()
        if child == 0:
            try:
                ingredients.bundle(out)
            finally:
                os._exit(0)
        time.sleep(milliseconds / 1000)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert not out.exists() or tree_digest(out) == expected
    assert tree_digest(ingredients.bundle(out)) == expected
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == [out.name]


def test_hypotheses_of_gold_segments_are_not_bundled(ingredients, tmp_path):
    segment = replace(ingredients.recipe.segment, method="gold")
    measured = replace(ingredients, recipe=replace(ingredients.recipe, segment=segment))
    with pytest.raises(UserError, match="segment.method: takes the references' segments"):
        measured.bundle(tmp_path / "bundle")


@pytest.mark.parametrize("name", ["model/model.safetensors", "en-zh/ACL.jsonl", "ACL.yaml", "scores.json"])
def test_artifact_whose_bytes_were_changed_at_equal_size_is_refused_by_name(ingredients, good, tmp_path, name):
    folder = Path(shutil.copytree(ingredients.folder, tmp_path / "objects"))
    artifacts = {folder: describe_files(folder)}
    store, before = replace(ingredients, folder=folder), tree_digest(good)
    assert tree_digest(store.bundle(good, artifacts=artifacts)) == before
    path = folder / name
    data = bytearray(path.read_bytes())
    data[-3] ^= 1  # in the last digit, word or weight: still the same form
    path.write_bytes(data)
    with pytest.raises(UserError) as refused:
        store.bundle(good, artifacts=artifacts)
    assert refused.value.where == str(path) and f"remove {folder} and all that" in refused.value.fix
    assert tree_digest(good) == before


def test_full_disk_is_named_and_leaves_the_good_bundle_alone(ingredients, good, capsys):
    parser = argparse.ArgumentParser()
    parser.set_defaults(verb=lambda args: ingredients.bundle(good) and 0)
    before, (soft, hard) = tree_digest(good), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))  # the model's weights are longer
    try:
        assert run(parser, []) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capsys.readouterr().err
    assert "model.safetensors: File too large; raise the limit" in said and "run the same command again" in said
    assert tree_digest(good) == before
    assert [p.name for p in good.parent.iterdir() if p.is_dir()] == [good.name]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("ENOSPC", "free some space"),
        ("EDQUOT", "quota"),
        ("EROFS", "read-only"),
        ("EISDIR", "name a file"),
        ("ENOENT", "make that folder"),
        ("EIO", "fix that"),
    ],
)
def test_errors_of_the_system_say_what_to_do(capsys, number, words):
    def verb(args: argparse.Namespace) -> int:
        code = getattr(errno, number)
        raise OSError(code, os.strerror(code), "dist/model")

    parser = argparse.ArgumentParser()
    parser.set_defaults(verb=verb)
    assert run(parser, []) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: dist/model: ") and words in said and "same command again" in said
