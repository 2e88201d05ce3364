"""Utterances in a memory-mapped file are those that were written."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from submission.text.corpus import Utterance
from train.corpora.decoded_audio import Place
from train.utterance_table import UtteranceTable, distinct_places, shared_places, write_utterance_table


def utterance(number: int, audio: str = "", language: str = "de") -> Utterance:
    return Utterance(
        id=f"talks/{number}",
        audio=audio or f"{number}.wav",
        start=number,
        end=2 * number + 10,
        source=f"sentence {number}",
        target="über \u2028 句子",
        source_lang="en",
        target_lang=language,
        recording="talk",
    )


@pytest.fixture
def utterances() -> list[Utterance]:
    return [utterance(n, language=x) for n in range(1300) for x in ("zh", "de")]


@pytest.fixture
def table(utterances: list[Utterance], tmp_path: Path) -> UtteranceTable:
    write_utterance_table(tmp_path / "train.arrow", iter(utterances))
    return UtteranceTable(tmp_path / "train.arrow")


def test_a_table_is_the_sequence_that_was_written(utterances: list[Utterance], table: UtteranceTable) -> None:
    assert len(table) == len(utterances)
    assert list(table) == utterances
    for index in (0, 999, 1000, 2599, -1):
        assert table[index] == utterances[index]
    assert table[2595:] == utterances[2595:]
    assert table.languages == ["de", "zh"]
    assert table.lengths.tolist() == [u.end - u.start for u in utterances]


def test_a_pickled_table_is_the_path_of_its_file(utterances: list[Utterance], table: UtteranceTable) -> None:
    sent = pickle.dumps(table)
    assert len(sent) < 500
    assert pickle.loads(sent)[1234] == utterances[1234]


def test_an_empty_table_has_no_utterances(tmp_path: Path) -> None:
    write_utterance_table(tmp_path / "dev.arrow", [])
    assert len(UtteranceTable(tmp_path / "dev.arrow")) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["dev.arrow"]


def test_places_are_counted_once_and_shared_where_a_recording_has_several(tmp_path: Path) -> None:
    tables = []
    for name, audio in (("a", ["one.m4a", "two.m4a", "two.m4a"]), ("b", ["one.m4a", "three.m4a"])):
        rows = [utterance(len(tables) * 10 + n, a, x) for n, a in enumerate(audio) for x in ("de", "zh")]
        write_utterance_table(tmp_path / name, rows)
        tables.append(UtteranceTable(tmp_path / name))
    assert len(distinct_places(*tables)) == 5
    expected: list[Place] = [("one.m4a", 0, 10), ("one.m4a", 10, 30), ("two.m4a", 1, 12), ("two.m4a", 2, 14)]
    assert sorted(shared_places(*tables)) == expected
    assert sorted(shared_places(tables[0])) == expected[2:]


PROGRAM = """
import sys
from pathlib import Path
from train.utterance_table import UtteranceTable
table = UtteranceTable(Path(sys.argv[1]))
print(len(table), table[5].id)
"""


def test_opening_a_table_writes_nothing_and_needs_no_network(table: UtteranceTable, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = os.environ | {"HOME": str(home), "HF_HOME": str(home / "hf"), "HTTPS_PROXY": "http://127.0.0.1:1"}
    command = [sys.executable, "-c", PROGRAM, str(table.path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == "2600 talks/2\n"
    assert result.stderr == ""
    assert list(home.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["train.arrow"]
