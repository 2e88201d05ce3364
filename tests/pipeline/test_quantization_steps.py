"""Sensitivity, AWQ and packing as steps of their own: each reads what the one before wrote, and builds nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantize.__main__ import make_parser
from submission.cli import open_system, run
from submission.system.pipeline import STEPS


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """Return the arguments of a miniature whose steps before quantization are built."""
    words = ["--recipe=primary", f"--store={tmp_path}"]
    system, store = open_system(make_parser().parse_args(["pack", *words]))
    for name in ("data", "corpus", "finetune", "merge"):
        store.obtain(system.stage(name), lambda out: (out / "x").touch())
    return words


@pytest.mark.parametrize(("verb", "missing"), [("awq", "sensitivity"), ("pack", "sensitivity")])
def test_an_unbuilt_step_is_named_with_its_command(arguments, capsys, verb, missing):
    capsys.readouterr()
    assert run(make_parser(), [verb, *arguments]) == 2
    error = capsys.readouterr().err
    assert f"stage {missing}: is not built; run `python -m quantize {missing} " in error and "building" not in error


@pytest.mark.parametrize(
    ("verb", "recipe"),
    [
        ("sensitivity", "ablation:8bit"),
        ("awq", "contrastive"),
        ("calibrate", "primary"),
        ("allocate", "primary"),
        ("recover", "primary"),
    ],
)
def test_a_step_that_the_system_lacks_is_refused(tmp_path, capsys, verb, recipe):
    assert run(make_parser(), [verb, f"--recipe={recipe}", f"--store={tmp_path}"]) == 2
    assert f"recipe {recipe} has no step {verb}" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["awq", "pack"])
def test_of_several_processes_all_but_the_first_return(arguments, capsys, monkeypatch, verb):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    capsys.readouterr()
    assert run(make_parser(), [verb, *arguments]) == 0
    assert capsys.readouterr() == ("", "")


def test_processes_share_one_system_and_no_list(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    data = ["sensitivity", "--recipe=ablation", f"--store={tmp_path}"]
    system, store = open_system(make_parser().parse_args(["pack", "--recipe=primary", f"--store={tmp_path}"]))
    store.obtain(system.stage("data"), lambda out: (out / "x").touch())
    assert run(make_parser(), data) == 2
    assert "several processes share the work of one system, and this is a list" in capsys.readouterr().err


def test_verbs_that_take_lists_are_those_that_the_table_says():
    assert [step.command for step in STEPS if step.takes_lists] == [
        "quantize sensitivity",
        "quantize awq",
        "quantize calibrate",
        "quantize allocate",
        "quantize pack",
        "quantize recover",
    ]
