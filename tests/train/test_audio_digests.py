"""By what later stages know the audio that a corpus takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from submission.errors import UserError
from submission.system.recipe.training_options import CorpusOptions, Source
from submission.text.corpus import read_corpus
from tests.train.support import row, write_acl, write_plain, write_wav
from train.corpora.audio_digests import AUDIO, END_BYTES, check_audio, ends_digest
from train.corpora.build import build_corpus


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_acl(tmp_path / "acl_6060/dev", "dev", 2)
    write_plain(tmp_path / "corpora/talks", [row(n) for n in range(4)])
    for number in range(4):
        write_wav(tmp_path / f"corpora/talks/audio/u{number:02d}.wav", 1 + number / 20)
    (tmp_path / "out").mkdir()
    options = CorpusOptions(sources=(Source(name="talks", format="plain"),), utterances={"de": 2, "zh": 2}, seed=1)
    build_corpus(tmp_path, options, ["de", "zh"], ["de", "zh"], 8, tmp_path / "out")
    return tmp_path


def test_the_corpus_names_the_audio_that_it_takes_and_no_other(data: Path) -> None:
    lines = [json.loads(line) for line in (data / "out" / AUDIO).read_text(encoding="utf-8").splitlines()]
    taken = {u.audio for name in ("train", "dev") for u in read_corpus(data / f"out/{name}.jsonl")}
    assert [line["audio"] for line in lines] == sorted(taken) and len(taken) == 4
    for line in lines:
        assert (line["bytes"], line["sha256_of_ends"]) == ends_digest(data / line["audio"])
    check_audio(data / "out", data)


@pytest.mark.parametrize(("damage", "message"), [("cut", "has another size"), ("removed", "is gone")])
def test_audio_that_changed_since_is_refused_before_training(data: Path, damage: str, message: str) -> None:
    path = data / json.loads((data / "out" / AUDIO).read_text(encoding="utf-8").splitlines()[-1])["audio"]
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-2])
    else:
        path.unlink()
    with pytest.raises(UserError, match=rf"1 of 4 audio files have changed .*{path.name} {message}"):
        check_audio(data / "out", data)


@pytest.mark.parametrize("size", [0, 10, END_BYTES, END_BYTES + 1, 2 * END_BYTES, 5 * END_BYTES])
def test_a_digest_of_ends_sees_both_ends_and_the_size(tmp_path: Path, size: int) -> None:
    path, content = tmp_path / "a.mp3", bytearray(size)
    path.write_bytes(content)
    before = ends_digest(path)
    assert before[0] == size
    for index in {0, size - 1, min(size, END_BYTES) - 1, max(0, size - END_BYTES)} if size else ():
        changed = content.copy()
        changed[index] = 1
        path.write_bytes(changed)
        assert ends_digest(path)[1] != before[1]
    path.write_bytes(content + b"\0")
    assert ends_digest(path) != before
