"""What changes the keys of a system's stages, and what does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from submission.store.records import CONTENTS
from submission.store.store import Stage, Store
from submission.system.campaign import read_campaign
from submission.system.recipe.recipe_files import read_recipe
from submission.system.revisions import REVISIONS
from submission.system.system import System
from tests.support.published_data import write_published_data

STRAY = (
    ".cache/huggingface/download/config.json.metadata",
    ".DS_Store",
    "._config.json",
    "README.md",
    "download.tar.gz",
    "notes.txt.swp",
    "config.json~",
    "#FILE_ORDER#",
    "FILE_ORDER.bak",
)


def opened(data: Path, store: Path, recipe: str = "primary") -> System:
    return System(read_campaign("iwslt26"), read_recipe(recipe, "iwslt26"), data, store)


def keys(data: Path, store: Path, recipe: str = "primary") -> dict[str, str]:
    """Return the key of every stage, as a command that begins now computes it."""
    return {stage.id: stage.key for stage in opened(data, store, recipe).stages()}


@pytest.mark.parametrize("recipe", ["primary", "constrained", "frontier", "eleven-languages"])
def test_stray_files_in_any_input_folder_change_no_key(tmp_path, recipe):
    data, store = tmp_path / "data", tmp_path / "store"
    write_published_data(data, recipe)
    before, inputs = keys(data, store, recipe), opened(data, store, recipe).external_inputs()
    folders = [data, *(path for path in data.rglob("*") if path.is_dir())]
    assert len(folders) > 20
    for folder in folders:
        for name in STRAY:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("stray", encoding="utf-8")
    assert keys(data, store, recipe) == before
    assert opened(data, store, recipe).external_inputs() == inputs
    for folder in folders:
        shutil.rmtree(folder / ".cache")
        for name in STRAY[1:]:
            (folder / name).unlink()
    assert keys(data, store, recipe) == before


def test_a_model_that_is_downloaded_again_changes_no_key(tmp_path):
    data, store = tmp_path / "data", tmp_path / "store"
    write_published_data(data)
    before = keys(data, store)
    shutil.copytree(data / "models", tmp_path / "again")
    shutil.rmtree(data / "models")
    (tmp_path / "again").rename(data / "models")
    assert keys(data, store) == before
    (data / "models/Qwen2-Audio-7B/tokenizerx.json").unlink()
    assert keys(data, store) == before  # no file that is read
    (data / "models/Qwen2-Audio-7B/tokenizer.json").write_text("{}", encoding="utf-8")
    changed = keys(data, store)
    assert {name for name in before if changed.get(name) == before[name]} == {
        "corpus",
        *(name for name in before if name.startswith("segment:")),
    }


def write_artifact(store: Store, stage: Stage, files: dict[str, str]) -> None:
    def make(out: Path) -> None:
        for name, content in files.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(content, encoding="utf-8")

    store.obtain(stage, make)


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Path, Store]:
    """A data folder, and a store in which corpus, finetune and merge are built."""
    data, store = tmp_path / "data", Store(root=tmp_path / "store")
    write_published_data(data)
    write_artifact(store, opened(data, store.root).stage("corpus"), {"train.jsonl": "t", "corpus_report.json": "r"})
    files = {"adapter/adapter_model.safetensors": "w", "log.jsonl": "l"}
    write_artifact(store, opened(data, store.root).stage("finetune"), files)
    files = {"model.safetensors": "w", "merge_report.json": "r"}
    write_artifact(store, opened(data, store.root).stage("merge"), files)
    return data, store


def test_a_corpus_sampled_again_with_the_same_result_trains_nothing_again(trained):
    data, store = trained
    before = keys(data, store.root)
    (data / "corpora/covost2/clips/one_more.mp3").write_bytes(b"x")
    changed = keys(data, store.root)
    assert changed["corpus"] != before["corpus"] and changed["finetune"] != before["finetune"]  # not known yet
    write_artifact(store, opened(data, store.root).stage("corpus"), {"train.jsonl": "t", "corpus_report.json": "other"})
    again = keys(data, store.root)
    assert {name for name in before if again[name] != before[name]} == {"corpus"}
    (data / "corpora/covost2/clips/another.mp3").write_bytes(b"x")
    write_artifact(store, opened(data, store.root).stage("corpus"), {"train.jsonl": "u", "corpus_report.json": "r"})
    assert keys(data, store.root)["finetune"] != before["finetune"]


def test_equal_adapters_merge_nothing_and_equal_weights_pack_nothing_again(trained, monkeypatch):
    data, store = trained
    before = keys(data, store.root)
    monkeypatch.setitem(REVISIONS, "finetune", 99)
    files = {"adapter/adapter_model.safetensors": "w", "log.jsonl": "another log"}
    write_artifact(store, opened(data, store.root).stage("finetune"), files)
    again = keys(data, store.root)
    assert {name for name in before if again[name] != before[name]} == {"finetune"}
    monkeypatch.setitem(REVISIONS, "merge", 99)
    write_artifact(
        store, opened(data, store.root).stage("merge"), {"model.safetensors": "w", "merge_report.json": "other"}
    )
    again = keys(data, store.root)
    assert {name for name in before if again[name] != before[name]} == {"finetune", "merge"}


def test_artifacts_removed_for_their_space_change_no_key(trained):
    data, store = trained
    before = keys(data, store.root)
    shutil.rmtree(store.root / "objects")
    assert keys(data, store.root) == before
    shutil.rmtree(store.root / CONTENTS)
    assert keys(data, store.root)["quantize"] != before["quantize"]


def test_a_system_that_is_open_sees_what_is_built_meanwhile(tmp_path):
    data, store = tmp_path / "data", Store(root=tmp_path / "store")
    write_published_data(data)
    system = opened(data, store.root)
    provisional = system.stage("finetune").key
    write_artifact(store, system.stage("corpus"), {"train.jsonl": "t"})
    assert system.stage("finetune").key == opened(data, store.root).stage("finetune").key != provisional
