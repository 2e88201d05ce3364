"""Corpus lines, digests and the writing of files."""

from __future__ import annotations

import io
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submission.errors import UserError
from submission.progress import progress
from submission.store.digests import canonical_json, files_below, tree_digest, write_text
from submission.text.corpus import Utterance, read_corpus, write_corpus

TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)


def utterance(**changes) -> Utterance:
    values = {"id": "u1", "audio": "a.wav", "start": 0, "end": 16000, "source": "Hello.", "target": "Hallo."}
    return Utterance(**{**values, "source_lang": "en", "target_lang": "de", "recording": "a", **changes})


@given(st.lists(st.builds(lambda s, t: utterance(source=s, target=t), TEXT, TEXT), max_size=4))
def test_corpus_survives_the_file(tmp_path_factory, utterances):
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    write_corpus(path, utterances)
    assert read_corpus(path) == utterances


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not a JSON object"),
        ("[]", "not a JSON object"),
        ('{"id": "u1"}', "missing, unknown or mistyped fields"),
    ],
)
def test_wrong_corpus_line_is_named(tmp_path, line, message):
    write_corpus(tmp_path / "c.jsonl", [utterance()])
    with (tmp_path / "c.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=f"line 2: {message}"):
        read_corpus(tmp_path / "c.jsonl")


def test_mistyped_corpus_field_is_named(tmp_path):
    record = json.loads(json.dumps({f: getattr(utterance(), f) for f in Utterance.__slots__}))
    (tmp_path / "c.jsonl").write_text(json.dumps({**record, "start": "0"}) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"\['start'\]"):
        read_corpus(tmp_path / "c.jsonl")


def test_equal_values_are_spelled_equally():
    assert canonical_json({"b": 1, "a": [1.5, "ü"]}) == canonical_json({"a": [1.5, "ü"], "b": 1})
    assert canonical_json({"b": 1, "a": "ü"}) == '{\n "a": "ü",\n "b": 1\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant|Out of range"):
        canonical_json(float("nan"))


def test_tree_digest_knows_names_and_contents_only(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "below").mkdir(parents=True)
        write_text(tmp_path / name / "below" / "a.txt", "a\n")
    os.utime(tmp_path / "two" / "below" / "a.txt", (0, 0))
    assert tree_digest(tmp_path / "one") == tree_digest(tmp_path / "two")
    os.rename(tmp_path / "two" / "below" / "a.txt", tmp_path / "two" / "below" / "b.txt")
    assert tree_digest(tmp_path / "one") != tree_digest(tmp_path / "two")


def test_linked_folders_count_and_circles_end(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere" / "clip.wav").write_bytes(b"one")
    (tmp_path / "data" / "audio").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "data")
    before = tree_digest(tmp_path / "data")
    assert [p.relative_to(tmp_path / "data").as_posix() for p in files_below(tmp_path / "data")] == ["audio/clip.wav"]
    (tmp_path / "elsewhere" / "clip.wav").write_bytes(b"two")
    assert tree_digest(tmp_path / "data") != before


def test_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    write_text(tmp_path / "a.txt", "old\n")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "\ud800")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"old\n"


def test_progress_in_a_pipe_says_nothing_of_short_work(monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with progress("packing", 3, "tensors") as tick:
        tick(3)
    import sys

    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize(
    ("total", "done", "shown"),
    [(2.53, 0.31, "12% 0.31/2.53 M"), (8397.1, 1000.0, "12% 1,000/8,397 M"), (9, 8.4, "93% 8/9 M")],
)
def test_progress_of_a_few_millions_shows_their_fractions(monkeypatch, total, done, shown):
    import sys

    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.setattr("submission.progress.PLAIN_SECONDS", 0.0)
    with progress("packing", total, "M") as tick:
        tick(done)
    assert shown in sys.stderr.getvalue()


def test_a_place_where_no_file_can_be_is_named_as_it_was_given(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as folder:
        write_text(tmp_path / "folder", "text")
    with pytest.raises(FileNotFoundError) as missing:
        write_text(tmp_path / "none" / "page.html", "text")
    assert (folder.value.filename, missing.value.filename) == (str(tmp_path / "folder"), str(tmp_path / "none"))
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
