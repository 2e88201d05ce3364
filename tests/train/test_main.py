"""The verbs as typed on a command line, on a data folder of noise."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from submission.cli import run
from submission.store.digests import sha256_file
from tests.train.finetuning_inputs import FinetuningInputs
from tests.train.support import row, write_acl, write_plain, write_wav
from train.__main__ import make_parser
from train.bench.step import WARM_UP_STEPS

RECIPE = """
extends = "primary"
description = "what a test has time for"

[campaign.miniature.finetune]
rank = 4
alpha = 8
epochs = 1
batch_size = 4
log_every_steps = 1
save_every_steps = 2
"""


@pytest.fixture
def arguments(inputs: FinetuningInputs, tmp_path: Path) -> list[str]:
    data = tmp_path / "data"
    shutil.copytree(inputs.base, data / "models/Qwen2-Audio-miniature")
    for split in ("dev", "eval"):
        write_acl(data / "acl_6060" / split, split, 3)
    write_plain(data / "corpora/talks", [row(n) for n in range(4)])
    for number in range(4):
        write_wav(data / f"corpora/talks/audio/u{number:02d}.wav", 1)
    names = ("ACL", "TVSERIES", "CHALLENGEACCENT", "CALLCENTER", "YOUTUBE", "BUSINESSNEWS")
    files = [f"testsets/{name}/{file}" for name in names for file in ("FILE_ORDER", "a.wav", "segments.yaml")]
    for path in ("models/shas/config.json", "models/shas/model.safetensors", *files):
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        (data / path).touch()
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    return ["--data", str(data), "--recipe", str(tmp_path / "recipe.toml"), "--store", str(tmp_path / "store")]


def test_corpus_finetune_and_merge_build_upon_each_other(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(make_parser(), ["merge", *arguments]) == 2
    assert "run `python -m train finetune" in capsys.readouterr().err
    folders = []
    for verb in ("corpus", "finetune", "merge"):
        assert run(make_parser(), [verb, *arguments]) == 0
        folders.append(Path(capsys.readouterr().out.strip()))
    corpus, finetune, merge = folders
    assert len((corpus / "train.jsonl").read_text(encoding="utf-8").splitlines()) == 8
    assert json.loads((finetune / "finetuning_report.json").read_text(encoding="utf-8"))["steps"] == 2
    assert (merge / "model.safetensors").is_file()
    origin = json.loads((merge / "merge_report.json").read_text(encoding="utf-8"))
    assert (origin["step"], origin["seed"], origin["base"]) == (2, 42, "Qwen2-Audio-miniature")
    assert origin["sample"]["sha256"] == sha256_file(corpus / "train.jsonl")
    assert origin["sample"]["languages"]["de"]["utterances"] == 4
    assert run(make_parser(), ["merge", *arguments]) == 0
    assert "cached" in capsys.readouterr().err


def test_the_help_needs_no_heavy_library() -> None:
    code = (
        "import sys, train.__main__ as m; m.make_parser(); print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "set()\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "2"], "--steps: expected a whole number of at least 3, got '2'"),
        (["--steps", "many"], "--steps: expected a whole number of at least 3, got 'many'"),
        (["--turns", "0"], "--turns: expected a whole number of at least 1, got '0'"),
        (["--turns", "-1"], "--turns: expected a whole number of at least 1, got '-1'"),
    ],
)
def test_a_bench_that_times_nothing_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        make_parser().parse_args(["bench", *words])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_the_fewest_steps_of_a_bench_leave_one_to_time() -> None:
    options = make_parser().parse_args(["bench", "--steps", str(WARM_UP_STEPS + 1), "--turns", "1"])
    assert (options.steps, options.turns) == (WARM_UP_STEPS + 1, 1)
