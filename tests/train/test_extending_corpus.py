"""The corpus format of docs/extending/corpus.md is read as the page says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import train.corpora.formats
from submission.errors import UserError
from submission.system import corpus_formats
from submission.system.recipe.training_options import CorpusOptions
from submission.system.schema import parse
from submission.text.corpus import read_corpus
from tests.train.support import write_acl, write_wav
from train.corpora.build import build_corpus

PAGE = Path("docs/extending/corpus.md")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CorpusOptions:
    """Follow the page: write the reader's module and the entry, and return the recipe's options."""
    reader, entry = blocks("python")
    (tmp_path / "formats").mkdir()
    (tmp_path / "formats/wav_list.py").write_text(reader, encoding="utf-8")
    folders = [*train.corpora.formats.__path__, str(tmp_path / "formats")]
    monkeypatch.setattr(train.corpora.formats, "__path__", folders)
    entries = eval("{" + entry + "}", {"CorpusFormat": corpus_formats.CorpusFormat})
    for name, corpus_format in entries.items():
        monkeypatch.setitem(corpus_formats.CORPUS_FORMATS, name, corpus_format)
    return parse(CorpusOptions, tomllib.loads(blocks("toml")[0])["corpus"], "recipe.toml")


def test_the_format_of_the_page_is_read(options: CorpusOptions, tmp_path: Path) -> None:
    folder = tmp_path / "corpora/lectures"
    write_acl(tmp_path / "acl_6060/dev", "dev", 3)
    for number in range(1, 4):
        write_wav(folder / f"lectures/0{number}.wav", number)
    rows = [f"lectures/0{n}.wav\tsentence {n}\tSatz {n}\n" for n in range(1, 4)]
    (folder / "list.tsv").write_text("".join(rows), encoding="utf-8")
    (tmp_path / "out").mkdir()
    report = build_corpus(tmp_path, options, ["de"], ["de"], 8, tmp_path / "out")
    utterances = read_corpus(tmp_path / "out/train.jsonl")
    assert [(u.id, u.end, u.target) for u in utterances] == [
        (f"lectures/lectures/0{n}", 16_000 * n, f"Satz {n}") for n in range(1, 4)
    ]
    assert report["train"]["skipped"] == {}
    (folder / "list.tsv").write_text("/etc/passwd\ta\tb\n" + rows[0], encoding="utf-8")
    with pytest.raises(UserError, match=r"does not parse: 1, e.g. lectures/list.tsv line 1 de: expected a path below"):
        build_corpus(tmp_path, options, ["de"], ["de"], 8, tmp_path / "out")
