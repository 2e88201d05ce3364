"""Local snapshots of hub datasets, written by `datasets` and by pyarrow."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from submission.errors import UserError
from submission.runtime.audio import read_slice
from submission.system.recipe.training_options import CorpusOptions, Source
from submission.text.corpus import Utterance, read_corpus
from tests.train.support import write_acl
from train.corpora.build import build_corpus

COLUMNS = {"audio": "audio", "source": "sentence"}
TARGETS = {"de": "translation.de", "zh": "translation.zh"}
AUDIO = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def samples(number: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(number).standard_normal(8_000 + 100 * number)


def encoded(number: int, kind: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples(number), 16_000, format=kind)
    return file.getvalue()


def audio_cell(number: int) -> dict:
    kind = ("WAV", "FLAC", "MP3")[number % 3]
    return {"bytes": encoded(number, kind), "path": f"clip_{number}.{kind.lower()}"}


def table(
    count: int, cell: Callable[[int], object] = audio_cell, kind: pa.DataType = AUDIO, **columns: list
) -> pa.Table:
    """Return a table of `count` utterances; columns: replace those of the texts, or add others."""
    texts = {
        "sentence": [f"sentence {n}" for n in range(count)],
        "translation": [{"de": f"Satz {n}", "zh": f"句子{n}"} for n in range(count)],
        "number": list(range(count)),
    }
    return pa.table({"audio": pa.array([cell(n) for n in range(count)], kind), **texts, **columns})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_acl(tmp_path / "acl_6060/dev", "dev", 3)
    (tmp_path / "corpora/talks/data").mkdir(parents=True)
    return tmp_path


def write_parquet(data: Path, content: pa.Table, name: str = "train-0.parquet", row_group_size: int = 4) -> None:
    pq.write_table(content, data / "corpora/talks/data" / name, row_group_size=row_group_size)


def build(data: Path, count: int = 0, share: float = 0.5, out: str = "out", **changes: object) -> dict:
    values = {"files": ("data/train-*.parquet",), "columns": COLUMNS, "targets": TARGETS} | changes
    source = Source(name="talks", format="hub", **values)
    utterances = {"de": count, "zh": count}
    choices = CorpusOptions(sources=(source,), utterances=utterances, seed=1, max_skipped_share=share)
    (data / out).mkdir(exist_ok=True)
    return build_corpus(data, choices, ["de", "zh"], ["de", "zh"], 8, data / out)


def by_id(data: Path, language: str = "de") -> dict[str, Utterance]:
    return {u.id: u for u in read_corpus(data / "out/train.jsonl") if u.target_lang == language}


def test_embedded_audio_is_extracted_as_it_is(data: Path) -> None:
    write_parquet(data, table(10))
    report = build(data)
    assert report["train"]["languages"]["de"]["utterances"] == 10
    found = by_id(data)
    for number in range(10):
        u = found[f"talks/data/train-0.parquet/{number:07d}"]
        assert (u.source, u.target) == (f"sentence {number}", f"Satz {number}")
        assert Path(u.audio).read_bytes() == audio_cell(number)["bytes"]
        assert len(read_slice(data / u.audio, u.start, u.end)) == u.end - u.start
        if number % 3 < 2:
            assert u.end == 8_000 + 100 * number
            np.testing.assert_allclose(read_slice(data / u.audio, 0), samples(number), atol=1 / 32768)


def test_paths_in_corpus_jsonl_are_relative_to_its_folder(data: Path) -> None:
    write_parquet(data, table(3))
    build(data)
    assert str(data) not in (data / "out/train.jsonl").read_text(encoding="utf-8")
    (data / "out").rename(data / "moved")
    assert all(Path(u.audio).is_file() for u in read_corpus(data / "moved/train.jsonl"))


def test_only_the_audio_of_the_sample_is_kept(data: Path) -> None:
    write_parquet(data, table(12))
    build(data, 3)
    kept = {path for path in (data / "out/audio").rglob("*") if path.is_file()}
    assert kept == {Path(u.audio) for u in read_corpus(data / "out/train.jsonl")}
    assert len(kept) == 3


def test_a_stopped_build_continues_to_the_same_files(data: Path) -> None:
    write_parquet(data, table(12))
    build(data, 3)
    folder = data / "left/audio/talks/data/train-0.parquet"
    folder.mkdir(parents=True)
    (folder / "0000001.flac").write_bytes(encoded(1, "FLAC"))
    (folder / "0000002.mp3.partial").write_bytes(b"half")
    build(data, 3, out="left")
    names = [
        {p.relative_to(data / o): p.read_bytes() for p in (data / o).rglob("*.*") if p.is_file()}
        for o in ("out", "left")
    ]
    assert names[0] == names[1]


def test_columns_of_bytes_and_of_paths_are_audio_too(data: Path) -> None:
    soundfile.write(data / "corpora/talks/clip.flac", samples(1), 16_000)
    write_parquet(data, table(2, lambda n: encoded(n, "WAV"), pa.binary()), "train-0.parquet")
    write_parquet(data, table(1, lambda n: "clip.flac", pa.string()), "train-1.parquet")
    write_parquet(data, table(1, lambda n: {"bytes": None, "path": "clip.flac"}), "train-2.parquet")
    assert build(data)["train"]["languages"]["de"]["utterances"] == 4
    assert by_id(data)["talks/data/train-2.parquet/0000000"].audio == "corpora/talks/clip.flac"


def test_a_dataset_saved_by_datasets_is_read(data: Path) -> None:
    import datasets

    made = datasets.Dataset(datasets.table.InMemoryTable(table(5)))
    made = made.cast_column("audio", datasets.Audio(decode=False))
    made.save_to_disk(data / "corpora/talks/saved")
    made.to_parquet(data / "corpora/talks/data/train-0.parquet")
    for pattern in ("saved/*.arrow", "data/*.parquet"):
        build(data, files=(pattern,), columns=COLUMNS | {"id": "number"})
        found = by_id(data)
        assert sorted(found) == [f"talks/{n}" for n in range(5)]
        assert all(Path(u.audio).read_bytes() == audio_cell(int(u.id[6:]))["bytes"] for u in found.values())


def test_rows_that_cannot_be_used_are_counted_by_reason(data: Path) -> None:
    cells: dict[int, object] = {
        0: {"bytes": b"no audio", "path": "a.wav"},
        1: {"bytes": None, "path": None},
        2: {"bytes": None, "path": "/etc/passwd"},
        3: {"bytes": None, "path": "../other/clip.wav"},
        4: {"bytes": None, "path": "gone.wav"},
        5: {"bytes": b"", "path": "b.wav"},
    }
    texts = [None if n == 6 else " " if n == 7 else f"sentence {n}" for n in range(20)]
    write_parquet(data, table(20, lambda n: cells.get(n) or audio_cell(n), sentence=texts))
    skipped = build(data, share=0.9)["train"]["skipped"]
    assert {reason: entry["count"] for reason, entry in skipped.items()} == {
        "audio missing": 4,
        "audio outside the corpus": 4,
        "audio unreadable": 4,
        "text empty": 4,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"files": ("train/*.parquet",)}, "no file matches 'train/.*there are 1 parquet or arrow files: data/train-0"),
        (
            {"columns": COLUMNS | {"source": "sentense"}},
            "'sentense': is missing.*did you mean 'sentence'.*known: ",
        ),
        ({"targets": TARGETS | {"de": "translation.fr"}}, "column 'translation.fr': is missing"),
        ({"columns": COLUMNS | {"audio": "number"}}, "column 'number': expected audio .*, got int64"),
        ({"columns": COLUMNS | {"source": "number"}}, "column 'number': expected text for source, got int64"),
        ({"files": ("data/notes.txt",)}, "notes.txt: is neither .parquet nor .arrow"),
        ({"files": ("data/broken.parquet",)}, "broken.parquet: cannot be read as a parquet or arrow file"),
        ({"files": ("data/broken.arrow",)}, "broken.arrow: cannot be read as a parquet or arrow file"),
    ],
)
def test_a_snapshot_that_is_not_as_the_recipe_says_is_refused_by_name(data: Path, changes: dict, message: str) -> None:
    write_parquet(data, table(2))
    for name in ("notes.txt", "broken.parquet", "broken.arrow"):
        (data / "corpora/talks/data" / name).write_bytes(b"no table")
    if "broken" not in str(changes):
        for name in ("broken.parquet", "broken.arrow"):
            (data / "corpora/talks/data" / name).unlink()
    with pytest.raises(UserError, match=message):
        build(data, **changes)
