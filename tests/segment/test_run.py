"""`python -m segment run` and `plot` on a data folder: one process or several, interrupted, with a bad recording."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from submission.store.input_files import OR
from submission.system.campaign import read_campaign
from submission.system.data_folder import MINIATURE
from submission.system.recipe.recipe_files import read_recipe
from submission.system.system import System
from submission.text.segments import read_segments
from tests.segment.tiny import speak
from tests.support.killing import killed_module

ROOT = Path(__file__).parents[2]
RATE = 16_000
RECIPE = 'extends = "primary"\ndescription = "Covers detected speech"\n[segment]\nmethod = "shas+vad"\n'
SETS = {"ACL": (31.0, 9.0), "TVSERIES": (5.0,), "CALLCENTER": (22.5, 14.0), "YOUTUBE": (12.0,)}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Return a data folder of the miniature's layout: its models, short recordings, and placeholders for the rest."""
    root = tmp_path_factory.mktemp("data")
    (root / "models").mkdir()
    campaign = read_campaign("miniature")
    (root / "models" / campaign.model.name).symlink_to(MINIATURE / "base")
    (root / "models" / "shas").symlink_to(MINIATURE / "shas")
    for name, lengths in SETS.items():
        (root / "testsets" / name).mkdir(parents=True)
        for i, seconds in enumerate(lengths):
            soundfile.write(root / "testsets" / name / f"r{i}.wav", speak(seconds, i), RATE)
        order = "".join(f"r{i}\n" for i in range(len(lengths)))
        (root / "testsets" / name / "FILE_ORDER").write_text(order, encoding="utf-8")
    for name in ("CHALLENGEACCENT", "BUSINESSNEWS"):
        (root / "testsets" / name).mkdir(parents=True)
        soundfile.write(root / "testsets" / name / "g.wav", speak(9, 5), RATE)
        (root / "testsets" / name / "FILE_ORDER").write_text("g.wav\n", encoding="utf-8")
        (root / "testsets" / name / "segments.yaml").write_text("- {wav: g, offset: 1, duration: 4}\n", "utf-8")
    for part in System(campaign, read_recipe("primary", "miniature"), root, root / "cache").missing():
        for pattern in (*part.holds, *([f"{part.audio.split(OR)[0]}/x.wav"] if part.audio else [])):
            path = root / part.part / pattern.split(OR)[0].replace("*", "x")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("", encoding="utf-8")
    (root / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    return root


def arguments(data: Path, store: Path, *more: str) -> list[str]:
    return ["--data", str(data), "--store", str(store), "--recipe", str(data / "recipe.toml"), *more]


def run(*command: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def made(store: Path) -> dict[str, dict[str, str]]:
    """Return stage -> the digests of its files."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in store.glob("objects/*/artifact.json")]
    return {f"{r['stage']}:{r['part']}": {name: f["sha256"] for name, f in r["files"].items()} for r in records}


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory) -> Path:
    """Return the store of one process that was not interrupted."""
    store = tmp_path_factory.mktemp("store")
    result = run("segment", "run", *arguments(data, store))
    assert result.returncode == 0, result.stderr
    assert "segment:ACL (shas+vad)\n  r0.wav" in result.stdout and "dropped (0.00%)" in result.stdout
    assert "segment:CHALLENGEACCENT (given)\n  g.wav" in result.stdout
    assert "segment:BUSINESSNEWS (shas+vad)\n  g.wav" in result.stdout
    assert "  1 region, each segmented like a recording" in result.stdout
    return store


def test_every_test_set_is_segmented(alone):
    stages = made(alone)
    assert len(stages) == 6
    assert all(sorted(files) == ["segmentation_report.json", "segments.yaml"] for files in stages.values())


def test_two_processes_make_the_bytes_of_one(data, alone, tmp_path):
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    result = run(*launcher, "segment", "run", *arguments(data, tmp_path))
    assert result.returncode == 0, result.stderr
    assert made(tmp_path) == made(alone)
    assert result.stdout.count("segment:ACL (shas+vad)") == 1


@pytest.mark.slow
def test_a_killed_run_resumes_and_makes_the_same_bytes(data, alone, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    killed_module(["segment", "run", *arguments(data, tmp_path)], tmp_path, "frame_probabilities/*.safetensors")
    cached = {path: path.stat().st_mtime_ns for path in tmp_path.glob("frame_probabilities/*.safetensors")}
    assert cached and len(made(tmp_path)) < 6
    assert run("segment", "run", *arguments(data, tmp_path)).returncode == 0
    assert made(tmp_path) == made(alone)
    assert all(path.stat().st_mtime_ns == when for path, when in cached.items())  # not computed again


@pytest.mark.slow
def test_a_bad_recording_is_reported_and_costs_no_other(data, alone, tmp_path):
    bad = data / "testsets" / "ACL" / "r1.wav"
    good = bad.read_bytes()
    try:
        bad.write_bytes(b"")
        result = run("segment", "run", *arguments(data, tmp_path))
        assert result.returncode == 2 and "Traceback" not in result.stderr
        assert "r1.wav: is not audio" in result.stderr
        assert set(made(alone)) - set(made(tmp_path)) == {"segment:ACL"}
    finally:
        bad.write_bytes(good)
    result = run("segment", "run", *arguments(data, tmp_path))
    assert result.returncode == 0 and made(tmp_path) == made(alone)
    assert "segment:TVSERIES: cached" in result.stderr


@pytest.mark.slow
def test_a_segmented_recording_is_plotted(data, alone, tmp_path):
    more = ("--testset", "ACL", "--recording", "r1.wav", "--out", str(tmp_path))
    result = run("segment", "plot", *arguments(data, alone, *more))
    assert result.returncode == 0, result.stderr
    paths = [Path(line) for line in result.stdout.splitlines()]
    assert paths == [tmp_path / "r1.wav.svg", tmp_path / "r1.wav.png"] and all(path.is_file() for path in paths)


def test_plotting_names_the_stage_that_is_missing(data, tmp_path):
    result = run("segment", "plot", *arguments(data, tmp_path, "--testset", "ACL", "--out", str(tmp_path)))
    assert result.returncode == 2 and "stage segment:ACL: is not built; run `python -m segment run" in result.stderr


def test_gold_segments_are_those_of_the_references(data, tmp_path):
    """Where a test set has them; the others are named, and cost it nothing."""
    folder = data / "references" / "ACL"
    folder.mkdir(parents=True)
    (folder / "segments.yaml").write_text("- {wav: r1, offset: 2, duration: 3}\n", encoding="utf-8")
    recipe = tmp_path / "gold.toml"
    recipe.write_text(RECIPE.replace("shas+vad", "gold"), encoding="utf-8")
    arguments = ["--data", str(data), "--store", str(tmp_path / "store"), "--recipe", str(recipe)]
    result = run(
        "segment", "run", *arguments, "--testset", "ACL", "--testset", "YOUTUBE", "--testset", "CHALLENGEACCENT"
    )
    assert result.returncode == 2
    assert "segment:ACL (given)" in result.stdout and "segment:CHALLENGEACCENT (given)" in result.stdout
    assert str(Path("references", "YOUTUBE", "segments.yaml")) in result.stderr
    (segments,) = [
        path
        for path in (tmp_path / "store" / "objects").glob("*/segments.yaml")
        if "r1.wav" in path.read_text(encoding="utf-8")
    ]
    assert [(s.start, s.end) for s in read_segments(segments)] == [(2 * RATE, 5 * RATE)]
