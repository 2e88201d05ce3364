"""What stage functions can see: their options and inputs, which their keys cover, and nothing else."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from submission.store.store import Input, Stage, Store
from submission.system.campaign import read_campaign
from submission.system.data_folder import SHIPPED
from submission.system.recipe.recipe_files import read_recipe
from submission.system.system import System
from submission.text.segments import read_segments
from tests.support.stage_sources import STAGE_MODULES, stage_functions

RATE = 16_000
NOT_FOR_STAGES = (
    "submission.system.system",
    "submission.system.stage_chain",
    "submission.system.campaign",
    "submission.system.recipe.recipe_files",
    "submission.cli",
)


@pytest.mark.parametrize("name", sorted(stage_functions()))
def test_a_stage_function_needs_options_inputs_and_out_alone(name):
    parameters = inspect.signature(stage_functions()[name]).parameters.values()
    assert [p.name for p in parameters if p.default is p.empty] == ["options", "inputs", "out"]
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters if p.default is not p.empty)


@pytest.mark.parametrize("module", STAGE_MODULES)
def test_modules_of_stage_functions_know_no_system_campaign_or_recipe_file(module):
    tree = ast.parse(Path(importlib.import_module(module).__file__).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert not set(names) & set(NOT_FOR_STAGES)


def noise(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(1).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)
    soundfile.write(path, samples, RATE)


def write_acl(folder: Path, split: str, lines: int) -> None:
    for number in range(1, lines + 1):
        noise(folder / f"segmented_wavs/gold/sent_{number}.wav", 1 + number / 10)
    for language, text in (("en", "one"), ("de", "eins"), ("zh", "一")):
        path = folder / f"text/txt/ACL.6060.{split}.en-xx.{language}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n" * lines, encoding="utf-8")
    segs = "".join(f'<seg id="{number}">one</seg>\n' for number in range(1, lines + 1))
    talk = f'<mteval><srcset setid="x" srclang="English"><doc docid="talk">\n{segs}</doc></srcset></mteval>\n'
    path = folder / f"text/xml/ACL.6060.{split}.en-xx.en.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(talk, encoding="utf-8")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Return a data folder with ACL 60/60, a plain corpus and one test set."""
    root = tmp_path_factory.mktemp("data")
    for split in ("dev", "eval"):
        write_acl(root / "acl_6060" / split, split, 3)
    lines = ["\t".join(("id", "audio", "start", "end", "recording", "source", "de", "zh"))]
    for number in range(48):
        noise(root / f"corpora/talks/audio/u{number}.wav", 1)
        lines.append(f"u{number}\tu{number}.wav\t\t\ttalk\tone\teins\t一")
    (root / "corpora/talks/utterances.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    noise(root / "testsets/ACL/one.wav", 12)
    (root / "testsets/ACL/FILE_ORDER").write_text("one\n", encoding="utf-8")
    return root


@pytest.fixture
def system(data, tmp_path) -> System:
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        'extends = "primary"\ndescription = "small"\n[segment]\nmethod = "fixed"\nmax_seconds = 5\n'
        "[campaign.miniature.corpus]\nutterances = { de = 4, zh = 4 }\n",
        encoding="utf-8",
    )
    return System(read_campaign("miniature"), read_recipe(str(recipe), "miniature"), data, tmp_path / "cache")


def build(store: Store, stage: Stage) -> Path:
    """Build a stage by its function with nothing but its options and inputs."""
    return store.build(stage, stage_functions()[stage.name])


def test_the_corpus_is_built_of_options_and_inputs(system, tmp_path):
    folder = build(Store(root=tmp_path / "store"), system.stage("corpus"))
    utterances = [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(utterances) == 8 and {u["target_lang"] for u in utterances} == {"de", "zh"}


def test_a_test_set_is_segmented_by_options_and_inputs(system, tmp_path):
    stage = system.stage("segment", "ACL")
    assert "threshold" not in stage.options  # the method reads none
    segments = read_segments(build(Store(root=tmp_path / "store"), stage) / "segments.yaml")
    assert segments[-1].end == 12 * RATE and all(s.end - s.start <= 5 * RATE for s in segments)


def test_a_model_is_packed_by_options_and_inputs(tmp_path):
    recipe = read_recipe("ablation:4bit", "miniature")
    stage = System(read_campaign("miniature"), recipe, None, tmp_path / "cache").stage("quantize")
    merged = {"merge": Input(digest="m", path=SHIPPED["base"])}
    folder = build(Store(root=tmp_path / "store"), replaced(stage, inputs=merged))
    config = json.loads((folder / "model" / "config.json").read_text(encoding="utf-8"))
    assert "quantization_config" in config


def test_hypotheses_are_scored_by_options_and_inputs(system, tmp_path):
    stage = system.stage("score", "en-de/ACL6060")
    decode = tmp_path / "decode"
    decode.mkdir()
    write_hypotheses_of(decode, [f"sent_{number}.wav/0000" for number in (1, 2, 3)])
    inputs = stage.inputs | {"decode": Input(digest="h", path=decode)}
    folder = build(Store(root=tmp_path / "store"), replaced(stage, inputs=inputs))
    record = json.loads((folder / "score.json").read_text(encoding="utf-8"))
    assert (record["testset"]["testset"], record["testset"]["pair"]) == ("ACL6060", "en-de")
    assert record["scores"] and (folder / "lines.jsonl").is_file()


def write_hypotheses_of(folder: Path, segments: list[str]) -> None:
    from evaluate.decoding.hypotheses import make_hypothesis, write_hypotheses

    write_hypotheses(folder / "hypotheses.jsonl", [make_hypothesis(segment, "eins zwei drei") for segment in segments])


def replaced(stage: Stage, **changes: Any) -> Stage:
    from dataclasses import replace

    return replace(stage, **changes)


def test_a_stage_function_that_reads_an_option_outside_its_key_fails(system, tmp_path):
    stage = system.stage("corpus")
    for option in stage.options:
        if option in ("allow_fewer", "max_skipped_share", "held_out_recordings"):
            continue  # these have defaults
        lacking = {name: value for name, value in stage.options.items() if name != option}
        with pytest.raises(Exception, match=option):
            build(Store(root=tmp_path / option), replaced(stage, options=lacking))
