"""A whole build of the miniature: repeated, killed and resumed in another folder, with the same bytes."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from submission.store.digests import tree_digest
from tests.support.killing import killed_module

ROOT = Path(__file__).parents[2]
RECIPE = Path(__file__).with_name("quick.toml")
KILLS = 25
KILLS_PER_STEP = 4


def printed_steps(place: Path) -> dict[str, list[str]]:
    """Return step (`train corpus`) -> its command, as `submission steps` prints them for a build in a folder."""
    words = ["--recipe", str(RECIPE), "--store", str(place / "store"), "--dist", str(place / "dist")]
    arguments = [sys.executable, "-m", "submission", "steps", *words]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    commands = [shlex.split(line)[1:] for line in done.stdout.splitlines()]
    return {" ".join(words[1:3]): [sys.executable, *words] for words in commands}


def steps() -> list[str]:
    """Return the steps of a build in order."""
    return list(printed_steps(Path("anywhere")))


def command(step: str, place: Path) -> list[str]:
    return printed_steps(place)[step]


def completed(step: str, place: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | environment
    done = subprocess.run(command(step, place), cwd=ROOT, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, f"{step}\n{done.stdout}\n{done.stderr}"
    return done


def run(step: str, place: Path) -> str:
    return completed(step, place).stdout


def kill_after(seconds: float, step: str, place: Path) -> bool:
    """Start a step and kill it with all its children after a while; return whether it was still at work."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command(step, place), cwd=ROOT, start_new_session=True, **quiet)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Path, dict[str, str], dict[str, float]]:
    """Return the place of a build, and what each step said and how many seconds it took."""
    place, outputs, seconds = tmp_path_factory.mktemp("undisturbed"), {}, {}
    for step in steps():
        started = time.monotonic()
        outputs[step] = run(step, place)
        seconds[step] = time.monotonic() - started
    return place, outputs, seconds


def test_build_ends_with_a_verified_bundle_and_a_summary(undisturbed):
    place, outputs, _ = undisturbed
    text = outputs["submission summary"]
    assert f"Bundle: {place / 'dist' / 'miniature-quick'}" in text
    assert "under the limit" in text
    assert re.search(r"nox -s build_primary -- --campaign iwslt26 --recipe .+ --data DIR", text)
    lines = (place / "dist" / "miniature-quick" / "en-de" / "ACL.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) > 10 and any(lines)


def test_killed_build_in_another_place_gives_the_same_bundle(undisturbed, tmp_path):
    signs = {  # among the unfinished work, that there is some
        "submission.miniature data": "corpora/*/audio/*.wav",
        "train finetune": "checkpoints/*/complete",
        "quantize pack": "packed.jsonl",
        "evaluate decode": "hypotheses.jsonl",
    }
    for step in steps():
        if step in signs:
            killed_module(command(step, tmp_path)[2:], tmp_path, f"store/partial/*/{signs[step]}")
        run(step, tmp_path)
    bundles = [place / "dist" / "miniature-quick" for place in (undisturbed[0], tmp_path)]
    manifests = [json.loads((bundle / "manifest.json").read_text(encoding="utf-8")) for bundle in bundles]
    assert manifests[0]["files"] == manifests[1]["files"]
    assert tree_digest(bundles[0]) == tree_digest(bundles[1])


@pytest.mark.slow
def test_build_killed_at_many_random_moments_gives_the_same_bundle(undisturbed, tmp_path):
    chance, kills = random.Random(25), 0
    while kills < KILLS:  # a step that ended before its time was up has none left to be killed in
        place = tmp_path / str(kills)
        for step, seconds in undisturbed[2].items():
            for _ in range(KILLS_PER_STEP):
                kills += kill_after(chance.uniform(0, seconds), step, place)
            run(step, place)
            bundle = place / "dist" / "miniature-quick"
            assert not bundle.exists() or step in ("submission bundle", "submission summary")
        assert tree_digest(place / "dist" / "miniature-quick") == tree_digest(undisturbed[0] / "dist/miniature-quick")
        assert not list(place.glob("store/partial/*"))


def test_second_build_finds_everything_without_loading_torch(undisturbed):
    place, *_ = undisturbed
    for step in steps():
        imports = completed(step, place, PYTHONPROFILEIMPORTTIME="1").stderr.splitlines()
        modules = {line.rpartition("|")[2].strip() for line in imports if line.startswith("import time:")}
        assert "argparse" in modules and not {"torch", "transformers", "numba"} & modules, step
    journal = (place / "store" / "journals" / "miniature-quick.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["status"] for line in journal[1:]} == {"cached"}


def test_the_bundle_gives_its_own_lines_again(undisturbed, tmp_path):
    place, *_ = undisturbed
    bundle = place / "dist" / "miniature-quick"
    (audio,) = place.glob("store/objects/*/testsets/TVSERIES")
    again = ["--bundle", str(bundle), "--audio", str(audio), "--pair", "en-zh", "--out", str(tmp_path / "out")]
    again += ["--resegment"]  # by SHAS, with the classifier that the bundle holds
    done = subprocess.run(
        [sys.executable, "-m", "evaluate", "rerun", *again], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "en-zh.txt").read_bytes() == (bundle / "en-zh" / "TVSERIES.txt").read_bytes()
    assert "(100.0%), chrF 100.00" in done.stdout
