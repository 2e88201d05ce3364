"""docs/extending/stage.md, followed: its stage is planned, has a step and a verb, and is built by its function."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from submission.text.corpus import Utterance, write_corpus
from tests.support.extending import titled_blocks

ROOT = Path(__file__).parents[2]
PAGE = titled_blocks("stage.md")
BUILD = """
import sys
from dataclasses import replace
from pathlib import Path

from submission.store.store import Input, Store
from submission.system.campaign import read_campaign
from submission.system.recipe.recipe_files import read_recipe
from submission.system.system import System
from train.stages import STAGES

root = Path(sys.argv[1])
system = System(read_campaign("miniature"), read_recipe("primary", "miniature"), None, root)
stage = replace(system.stage("word_counts"), inputs={"corpus": Input(digest="c", path=root / "corpus")})
print(Store(root=root / "store").build(stage, STAGES["word_counts"]) / "word_counts.json")
"""


def edit(path: Path, pattern: str, block: str) -> None:
    """Replace the one place of a file that a pattern matches; `{}` in the block is what stood there."""
    text, count = re.subn(pattern, lambda found: block.replace("{}", found[0]), path.read_text(encoding="utf-8"))
    assert count == 1, f"{path.name}: {pattern!r} matches {count} times"
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def changed(tmp_path_factory) -> Path:
    """Return a copy of the packages with the changes of the page."""
    root = tmp_path_factory.mktemp("changed")
    for package in ("submission", "train"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "train/word_counts.py").write_text(PAGE["train/word_counts.py"], encoding="utf-8")
    stages, chain = root / "train/stages.py", root / "submission/system/stage_chain.py"
    edit(stages, r"(?m)^STAGES: ", PAGE["train/stages.py: the function"] + "\n\n{}")
    edit(stages, r'"corpus": corpus,', "{} " + PAGE["train/stages.py: the entry in STAGES"].strip())
    revisions = root / "submission/system/revisions.py"
    edit(revisions, r'(?m)^    "corpus": \d+,\n', "{}" + PAGE["submission/system/revisions.py: the entry in REVISIONS"])
    edit(chain, r"(?m)^def _utterance_audio", PAGE["submission/system/stage_chain.py: the stage"] + "\n\n{}")
    edit(
        chain,
        r"(?m)^    yield from \(corpus, finetune, merge\)\n",
        PAGE["submission/system/stage_chain.py: in build_stages"],
    )
    steps = root / "submission/system/pipeline.py"
    edit(steps, r'(?m)^.*name="corpus".*\n', "{}" + PAGE["submission/system/pipeline.py: the entry in STEPS"])
    verbs = root / "train/__main__.py"
    edit(verbs, r"(?m)^def finetune", PAGE["train/__main__.py: the verb"] + "\n\n{}")
    edit(verbs, r"(?m)^VERBS = .*\n", PAGE["train/__main__.py: VERBS"])
    return root


def output_of(root: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, *words], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_step_of_the_page_follows_the_corpus(changed):
    commands = output_of(changed, "-m", "submission", "steps", "--until", "finetune").splitlines()
    assert [" ".join(command.split()[2:4]) for command in commands[-3:]] == [
        "train corpus",
        "train words",
        "train finetune",
    ]
    assert "words" in output_of(changed, "-m", "train", "words", "--help")


def test_the_plan_has_the_stage_and_keeps_the_keys_of_the_others(changed, tmp_path):
    words = ("-m", "submission", "plan", "--json", "--store", str(tmp_path))
    before, after = (json.loads(output_of(root, *words)) for root in (ROOT, changed))
    keys = {row["stage"]: row["key"] for row in after}
    (new,) = keys.keys() - {row["stage"] for row in before}
    assert new == "word_counts"
    assert {row["stage"]: row["key"] for row in before}.items() < keys.items()


def test_the_stage_counts_the_words_of_dev(changed, tmp_path):
    (tmp_path / "corpus").mkdir()
    texts = [("de", "eins zwei"), ("de", "drei"), ("zh", "一二"), ("tr", "bir")]
    utterances = [
        Utterance(
            id=f"talk/{number}",
            audio="talk.wav",
            start=0,
            end=16_000,
            source="one two",
            target=target,
            source_lang="en",
            target_lang=language,
            recording="talk.wav",
        )
        for number, (language, target) in enumerate(texts)
    ]
    write_corpus(tmp_path / "corpus" / "dev.jsonl", utterances)
    path = Path(output_of(changed, "-c", BUILD, str(tmp_path)).strip())
    assert json.loads(path.read_text(encoding="utf-8")) == {"de": 3, "zh": 1}
