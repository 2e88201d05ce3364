"""The layouts of CoVoST 2 and Europarl-ST, in small and with real audio files of their kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from submission.errors import UserError
from submission.runtime.audio import read_slice
from submission.system.recipe.training_options import CorpusOptions, Source
from submission.text.corpus import read_corpus
from tests.train.support import write_acl, write_audio, write_lines
from train.corpora.build import build_corpus
from train.corpora.formats import covost2, europarl_st
from train.corpora.formats.corpus_utterance import CorpusUtterance, Unparsed
from train.corpora.formats.covost2 import split_cells

LANGUAGES = ["de", "tr", "zh"]


def candidates(reader, folder: Path, languages: list[str] = LANGUAGES) -> dict[str, CorpusUtterance]:
    found = list(reader.read(folder, languages))
    assert all(isinstance(candidate, CorpusUtterance) for candidate in found)
    return {candidate.id: candidate for candidate in found}


def write_covost(folder: Path, *, split: bool) -> None:
    """Write four clips, one of them of the test split, with German and Chinese."""
    texts = {"de": 'Er sagte „ja" zu {}.', "zh-CN": "他同意{}。"}
    for code, text in texts.items():
        rows = [
            (f"clip_{n}.mp3", text.format(n), "test" if n == 3 else "train_covost" if n else "train") for n in range(4)
        ]
        if split:
            cells = [
                "\t".join((path, f'he said "yes" to {path[5]}', t, "client"))
                for path, t, part in rows
                if part != "test"
            ]
            write_lines(folder / f"covost_v2.en_{code}.train.tsv", "path\tsentence\ttranslation\tclient_id", *cells)
        else:
            write_lines(folder / f"covost_v2.en_{code}.tsv", "path\ttranslation\tsplit", *("\t".join(r) for r in rows))
    sentences = [f'x\tclip_{n}.mp3\the said "yes" to {n}\t2' for n in range(4)]
    write_lines(folder / "validated.tsv", "client_id\tpath\tsentence\tup_votes", *sentences)
    for number in range(4):
        write_audio(folder / f"clips/clip_{number}.mp3", 1 + number / 10, 48_000)


@pytest.mark.parametrize("place", [".", "en"])
def test_split_and_unsplit_covost_are_the_same_utterances(tmp_path: Path, place: str) -> None:
    write_covost(tmp_path / "unsplit" / place, split=False)
    write_covost(tmp_path / "split" / place, split=True)
    (tmp_path / "split" / place / "validated.tsv").unlink()
    found = candidates(covost2, tmp_path / "unsplit")
    assert found == candidates(covost2, tmp_path / "split")
    assert sorted(found) == ["clip_0", "clip_1", "clip_2"]
    assert found["clip_1"].source == 'he said "yes" to 1'
    assert found["clip_1"].targets == {"de": 'Er sagte „ja" zu 1.', "zh": "他同意1。"}
    assert (tmp_path / "split" / found["clip_1"].audio).is_file()


def test_backslashes_escape_and_quotes_mean_nothing(tmp_path: Path) -> None:
    write_audio(tmp_path / "clips/a.mp3", 1, 48_000)
    write_lines(
        tmp_path / "covost_v2.en_de.train.tsv",
        "path\tsentence\ttranslation\tclient_id",
        'a.mp3\t"one\ta\\\ttab \\"quoted\\" \\\\ \tc1',
        "b.mp3\ttwo\tover\\",
        "two lines\tc2",
        "c.mp3\tthree\tU+2028 \u2028 is no line end\tc3\r",
    )
    found = candidates(covost2, tmp_path)
    assert {name: candidate.targets["de"] for name, candidate in found.items()} == {
        "a": 'a tab "quoted" \\',
        "b": "over two lines",
        "c": "U+2028 is no line end",
    }
    assert found["a"].source == '"one'


@given(cells=st.lists(st.text(alphabet='a"\\\t\n', max_size=6), min_size=1, max_size=4))
def test_cells_come_back_as_they_were_escaped(cells: list[str]) -> None:
    escaped = ("".join("\\" + c if c in "\\\t\n" else c for c in cell) for cell in cells)
    assert split_cells("\t".join(escaped)) == cells


def test_rows_of_covost_that_are_none_are_counted_by_reason(tmp_path: Path) -> None:
    write_covost(tmp_path, split=False)
    with (tmp_path / "covost_v2.en_de.tsv").open("a", encoding="utf-8") as file:
        file.write(
            "clip_0.mp3\tnoch einmal\ttrain\nonly one cell\n../x.mp3\tweg\ttrain\nclip_9.mp3\tohne Text\ttrain\n"
        )
    unparsed = [c for c in covost2.read(tmp_path, LANGUAGES) if isinstance(c, Unparsed)]
    assert [(u.id, u.reason) for u in unparsed] == [
        ("covost_v2.en_de.tsv line 6", "occurs twice"),
        ("covost_v2.en_de.tsv line 7", "does not parse"),
        ("covost_v2.en_de.tsv line 8", "does not parse"),
        ("clip_9", "no English text"),
    ]
    assert {u.languages for u in unparsed} == {("de",)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "validated.tsv").unlink(), "holds no validated.tsv"),
        (lambda folder: (folder / "clips").rename(folder / "mp3"), "holds no clips/"),
        (lambda folder: write_lines(folder / "covost_v2.en_de.tsv", "path\ttext"), "no column translation, split"),
        (lambda folder: (folder / "covost_v2.en_de.tsv").write_bytes(b""), "covost_v2.en_de.tsv: is empty"),
        (lambda folder: (folder / "covost_v2.en_de.tsv").write_bytes(b"\xff"), "cannot be read as UTF-8"),
    ],
)
def test_half_a_covost_is_refused(tmp_path: Path, change, message: str) -> None:
    write_covost(tmp_path, split=False)
    change(tmp_path)
    with pytest.raises(UserError, match=message):
        list(covost2.read(tmp_path, LANGUAGES))


def write_europarl(folder: Path) -> None:
    """Write two speeches, cut alike for German and for Turkish in one place and differently in another."""
    for number in (1, 2):
        write_audio(folder / f"en/audios/en.2008.{number}.m4a", 4, 44_100)
    cuts = {"de": ["en.2008.1 0.0 1.5", "en.2008.1 1.5 3.25", "en.2008.2 0.5 4.02"], "tr": ["en.2008.1 0.0 1.50"]}
    for language, lines in cuts.items():
        part = folder / "en" / language / "train"
        write_lines(part / "segments.lst", *lines)
        write_lines(part / "segments.en", *(f"segment {n}" for n in range(len(lines))))
        write_lines(part / f"segments.{language}", *(f"{language} {n}" for n in range(len(lines))))


@pytest.mark.parametrize("place", [".", "v1.1"])
def test_the_third_field_of_europarl_is_the_end(tmp_path: Path, place: str) -> None:
    write_europarl(tmp_path / place)
    found = list(candidates(europarl_st, tmp_path).values())
    assert [(c.start, c.end) for c in found] == [(0, 24_000), (24_000, 52_000), (8_000, 64_320)]
    assert found[0].targets == {"de": "de 0", "tr": "tr 0"}
    assert found[1].targets == {"de": "de 1"}
    assert all((tmp_path / c.audio).is_file() for c in found)
    assert found[2].recording == "en.2008.2.m4a"


def test_lines_of_europarl_that_are_no_stretch_are_counted(tmp_path: Path) -> None:
    write_europarl(tmp_path)
    part = tmp_path / "en/de/train"
    times = ["2.0 1.0", "nan 1.0", "1.0", "1.0 1e999999", "1.0 1e999990", "1.0 inf", "one 2.0"]
    bad = [*(f"en.2008.1 {time}" for time in times), "../x 1.0 2.0", "en.2008.1 0.0 1.5"]
    write_lines(part / "segments.lst", "en.2008.1 0.0 1.5", *bad)
    for name in ("en", "de"):
        write_lines(part / f"segments.{name}", *(f"{name} {n}" for n in range(1 + len(bad))))
    unparsed = [c for c in europarl_st.read(tmp_path, LANGUAGES) if isinstance(c, Unparsed)]
    assert [u.reason for u in unparsed] == ["does not parse"] * 8 + ["occurs twice"]
    assert unparsed[0].id == "en/de/train/segments.lst line 2"


def test_texts_of_europarl_without_a_line_per_segment_are_refused(tmp_path: Path) -> None:
    write_europarl(tmp_path)
    write_lines(tmp_path / "en/de/train/segments.de", "eins", "zwei")
    with pytest.raises(UserError, match="segments.lst, .en and .de have 3, 3, 2 lines"):
        list(europarl_st.read(tmp_path, LANGUAGES))


def test_one_corpus_comes_out_of_all_layouts_and_kinds_of_audio(tmp_path: Path) -> None:
    write_covost(tmp_path / "corpora/covost2", split=False)
    write_europarl(tmp_path / "corpora/europarl-st")
    write_acl(tmp_path / "acl_6060/dev", "dev", 2)
    header = "id\taudio\tstart\tend\trecording\tsource\tde\tzh"
    write_lines(
        tmp_path / "corpora/own/utterances.tsv",
        header,
        "a\ta.flac\t\t\t\tone\teins\t一",
        "b\tb.wav\t\t\t\ttwo\tzwei\t二",
    )
    write_audio(tmp_path / "corpora/own/audio/a.flac", 1, 22_050)
    write_audio(tmp_path / "corpora/own/audio/b.wav", 1, 8_000)
    (tmp_path / "corpora/covost2/clips/clip_2.mp3").write_bytes(b"not audio at all")
    sources = tuple(
        Source(name=name, format=layout)
        for name, layout in (("covost2", "covost2"), ("europarl-st", "europarl-st"), ("own", "plain"))
    )
    options = CorpusOptions(sources=sources, utterances={"de": 0, "zh": 0}, seed=1, max_skipped_share=0.2)
    (tmp_path / "out").mkdir()
    report = build_corpus(tmp_path, options, ["de", "zh"], ["de", "zh"], 30, tmp_path / "out")
    utterances = read_corpus(tmp_path / "out/train.jsonl")
    counts = report["train"]["languages"]["de"]["corpora"]
    assert {name: entry["utterances"] for name, entry in counts.items()} == {"covost2": 2, "europarl-st": 3, "own": 2}
    assert report["train"]["skipped"]["audio unreadable"]["utterances"] == ["covost2/clip_2 de", "covost2/clip_2 zh"]
    for u in utterances:
        samples = read_slice(tmp_path / u.audio, u.start, u.end)
        assert len(samples) == u.end - u.start
        assert 0.2 < np.abs(samples).max() < 0.6, u  # AAC overshoots where the tone begins
    mp3 = next(u for u in utterances if u.audio.endswith("clip_1.mp3"))
    assert abs(mp3.end - 17_600) < 1_500  # an encoder may pad
