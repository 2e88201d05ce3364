from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from submission.errors import UserError
from submission.system.recipe.training_options import CorpusOptions, Source
from submission.text.corpus import read_corpus
from tests.train.support import HEADER, row, write_acl, write_plain, write_wav
from train.corpora.build import build_corpus


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_acl(tmp_path / "acl_6060/dev", "dev", 3)
    write_plain(tmp_path / "corpora/talks", [row(n) for n in range(20)])
    for number in range(20):
        write_wav(tmp_path / f"corpora/talks/audio/u{number:02d}.wav", 1 + number / 20)
    return tmp_path


def options(
    share: float = 0.02, layout: str = "plain", seed: int = 1, fewer: bool = False, **utterances: int
) -> CorpusOptions:
    return CorpusOptions(
        sources=(Source(name="talks", format=layout),),
        utterances={"de": 0, "zh": 0} | utterances,
        seed=seed,
        max_skipped_share=share,
        allow_fewer=fewer,
    )


def build(data: Path, choices: CorpusOptions, out: str = "out") -> dict:
    folder = data / out
    folder.mkdir()
    return build_corpus(data, choices, ["de", "zh"], ["de", "zh"], 8, folder)


def test_every_utterance_appears_once_per_language(data: Path) -> None:
    report = build(data, options())
    utterances = read_corpus(data / "out/train.jsonl")
    assert len(utterances) == len({(u.id, u.target_lang) for u in utterances}) == 40
    first = utterances[0]
    assert (first.id, first.target_lang, first.target, first.source) == ("talks/u00", "de", "Satz 0", "sentence 0")
    assert (first.audio, first.start, first.end) == ("corpora/talks/audio/u00.wav", 0, 16_000)
    assert (data / first.audio).is_file()
    counts = {"utterances": 20, "hours": 0.0082}
    assert report["train"]["languages"]["zh"] == {"requested": "all", **counts, "corpora": {"talks": counts}}
    assert json.loads((data / "out/corpus_report.json").read_text(encoding="utf-8")) == report


def test_a_sample_does_not_depend_on_the_order_of_lines(data: Path) -> None:
    build(data, options(de=5, zh=7), "one")
    write_plain(data / "corpora/talks", [row(n) for n in reversed(range(20))])
    build(data, options(de=5, zh=7), "two")
    assert (data / "one/train.jsonl").read_bytes() == (data / "two/train.jsonl").read_bytes()


def test_a_longer_sample_holds_the_shorter_one(data: Path) -> None:
    build(data, options(de=5, zh=7))
    ids = {x: {u.id for u in read_corpus(data / "out/train.jsonl") if u.target_lang == x} for x in ("de", "zh")}
    assert len(ids["de"]) == 5
    assert len(ids["zh"]) == 7
    assert ids["de"] < ids["zh"]


def test_another_seed_draws_another_sample(data: Path) -> None:
    build(data, options(de=5, zh=5), "one")
    build(data, options(de=5, zh=5, seed=2), "two")
    assert (data / "one/train.jsonl").read_bytes() != (data / "two/train.jsonl").read_bytes()


def test_a_corpus_with_fewer_utterances_than_requested_is_refused(data: Path) -> None:
    (data / "corpora/talks/audio/u00.wav").write_bytes(b"no audio")
    with pytest.raises(UserError, match=r"zh: holds 19 usable utterances, the recipe requests 20.*allow_fewer = true"):
        build(data, replace(options(zh=20), max_skipped_share=0.5))


def test_too_few_lines_in_a_table_are_found_before_any_audio_is_read(data: Path) -> None:
    shutil.rmtree(data / "corpora/talks/audio")
    with pytest.raises(UserError, match=r"zh: the tables list 20 utterances \(talks: 20\), the recipe requests 21"):
        build(data, options(zh=21))


def test_a_recipe_that_allows_fewer_is_not_told_to_allow_it(data: Path) -> None:
    header, *rows = (line.rpartition("\t")[0] for line in (HEADER, *(row(n) for n in range(20))))
    write_plain(data / "corpora/talks", rows, header)
    with pytest.raises(UserError, match="complete the corpus, add one that has this language") as error:
        build(data, options(zh=21, fewer=True))
    assert "allow_fewer" not in str(error.value)


def test_fewer_than_requested_are_taken_where_the_recipe_allows_it(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = build(data, options(zh=21, fewer=True))
    assert report["train"]["languages"]["zh"]["utterances"] == 20
    assert "zh: 20 utterances, 0.01 h, fewer than the 21 requested" in capsys.readouterr().err


def test_hours_stand_beside_the_papers_where_the_recipe_asks_for_its_number(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    languages = build(data, options(de=49_997, zh=34_000, fewer=True))["train"]["languages"]
    assert languages["de"]["paper"] == {"utterances": 49_997, "hours": 87.38}
    assert "paper" not in languages["zh"]
    assert "(the paper: 49,997, 87.38 h), fewer than the 49,997 requested" in capsys.readouterr().err


def test_a_corpus_gives_the_number_that_its_source_states(data: Path) -> None:
    write_plain(data / "corpora/more", [row(n) for n in range(20)])
    shutil.copytree(data / "corpora/talks/audio", data / "corpora/more/audio")
    talks, more = (Source(name="talks", format="plain"), Source(name="more", format="plain", utterances={"de": 3}))
    for sources in ((talks, more), (more, talks)):
        choices = CorpusOptions(sources=sources, utterances={"de": 9, "zh": 9}, seed=1)
        languages = build(data, choices, sources[0].name)["train"]["languages"]
        counts = {name: entry["utterances"] for name, entry in languages["de"]["corpora"].items()}
        assert counts == {"more": 3, "talks": 6}
        assert languages["zh"]["utterances"] == 9
    assert (data / "more/train.jsonl").read_bytes() == (data / "talks/train.jsonl").read_bytes()
    greedy = Source(name="more", format="plain", utterances={"de": 21})
    with pytest.raises(UserError, match=r"de of more: the tables list 20 utterances .*, the recipe requests 21"):
        build(data, CorpusOptions(sources=(talks, greedy), utterances={"de": 25, "zh": 0}, seed=1))


def test_languages_beyond_the_campaigns_are_trained_and_not_watched(data: Path) -> None:
    header = HEADER + "\ttr"
    write_plain(data / "corpora/talks", [row(n) + f"\tcümle {n}" for n in range(20)], header)
    (data / "out").mkdir()
    build_corpus(data, options(tr=4), ["de", "tr", "zh"], ["de", "zh"], 8, data / "out")
    assert sum(u.target_lang == "tr" for u in read_corpus(data / "out/train.jsonl")) == 4
    assert {u.target_lang for u in read_corpus(data / "out/dev.jsonl")} == {"de", "zh"}


def test_an_end_just_behind_the_recordings_is_moved_to_it_and_counted(data: Path) -> None:
    write_plain(data / "corpora/talks", [row(0, end="17600"), row(1, end="17500"), row(2, end="19201")])
    report = build(data, options(share=0.5))  # recordings of 16,000, 16,800 and 17,600 samples
    assert [u.end for u in read_corpus(data / "out/train.jsonl") if u.target_lang == "de"] == [16_000, 16_800]
    assert report["train"]["clipped"] == ["talks/u00", "talks/u01"]
    assert report["train"]["skipped"]["outside the recording"]["count"] == 2


def test_recordings_whose_channels_cancel_out_are_counted_and_the_worst_is_named(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, seconds in ((3, 2), (4, 3)):
        voice = (0.5 * np.sin(np.arange(seconds * 16_000) * 0.2)).astype(np.float32)
        soundfile.write(data / f"corpora/talks/audio/u{number:02d}.wav", np.stack([voice, -voice], axis=1), 16_000)
    build(data, options())
    error = capsys.readouterr().err
    assert "corpus train: channels cancel out in the mean, which is trained on, in 2 recordings (most in " in error
    assert "u04.wav: 3.0 s)" in error and "corpus dev: channels" not in error


def test_what_cannot_be_used_is_counted_by_reason_and_left_out(data: Path) -> None:
    audio = data / "corpora/talks/audio"
    write_wav(audio / "long.wav", 8.01)
    write_wav(audio / "short.wav", 0.1)
    write_wav(audio / "empty.wav", 0)
    (audio / "broken.wav").write_bytes(b"no audio")
    bad = {
        "audio missing": row(30, audio="gone.wav"),
        "longer than the encoder's 8 s": row(31, audio="long.wav"),
        "shorter than 0.2 s": row(32, audio="short.wav"),
        "audio empty": row(33, audio="empty.wav"),
        "audio unreadable": row(34, audio="broken.wav"),
        "outside the recording": row(35, audio="u01.wav", end="99999999"),
        "text empty": row(36, audio="u01.wav", source=" "),
        "does not parse": row(37, audio="u01.wav", start="1.5"),
    }
    write_plain(data / "corpora/talks", [*bad.values(), *(row(n) for n in range(20)), row(38, audio="u01.wav", de="")])
    report = build(data, options(share=0.5))
    skipped = {reason: entry["count"] for reason, entry in report["train"]["skipped"].items()}
    assert skipped == {**dict.fromkeys(bad, 2), "text empty": 3}
    assert report["train"]["examined"] == 16 + 40 + 2
    assert report["train"]["languages"]["de"]["utterances"] == 20
    assert report["train"]["languages"]["zh"]["utterances"] == 21
    assert "talks/u38 de" in report["train"]["skipped"]["text empty"]["utterances"]


def test_audio_that_fails_when_it_is_read_is_counted_when_it_is_drawn(data: Path) -> None:
    audio, noise = data / "corpora/talks/audio", np.random.default_rng(0).uniform(-0.5, 0.5, 22_050)
    for rate in (16_000, 22_050):
        soundfile.write(audio / f"cut{rate}.flac", noise, rate)
        whole = (audio / f"cut{rate}.flac").read_bytes()
        (audio / f"cut{rate}.flac").write_bytes(whole[: len(whole) // 2])
        torn = noise.copy()
        torn[12_000] = np.nan
        soundfile.write(audio / f"nan{rate}.wav", torn, rate, subtype="FLOAT")
    bad = [row(30 + n, audio=name) for n, name in enumerate(("cut16000.flac", "cut22050.flac"))]
    bad += [row(40 + n, audio=name) for n, name in enumerate(("nan16000.wav", "nan22050.wav"))]
    before = row(42, audio="nan16000.wav", start="0", end="11000")  # the recording is not usable, as in segmentation
    write_plain(data / "corpora/talks", [*bad, before, *(row(n) for n in range(20))])
    report = build(data, options(share=0.5))
    skipped = {reason: entry["utterances"] for reason, entry in report["train"]["skipped"].items()}
    assert skipped == {
        "audio unreadable": [f"talks/u3{n} {language}" for n in (0, 1) for language in ("de", "zh")],
        "audio not finite": [f"talks/u4{n} {language}" for n in (0, 1, 2) for language in ("de", "zh")],
    }


def test_too_large_a_share_of_unusable_utterances_stops_the_run(data: Path) -> None:
    write_plain(data / "corpora/talks", [row(n) for n in range(21)])
    with pytest.raises(UserError, match=r"2 of 42 utterances \(4.8%\)") as caught:
        build(data, options())
    assert "audio missing: 2, e.g. talks/u20 de" in str(caught.value)


def test_a_slice_of_a_recording_is_taken_by_samples(data: Path) -> None:
    write_plain(data / "corpora/talks", [row(0, start="100", end="12100")])
    build(data, options())
    first = read_corpus(data / "out/train.jsonl")[0]
    assert (first.start, first.end) == (100, 12_100)


def test_a_corpus_without_a_language_is_no_fault_of_its_utterances(data: Path) -> None:
    header, *rows = (line.rpartition("\t")[0] for line in (HEADER, *(row(n) for n in range(20))))
    write_plain(data / "corpora/talks", rows, header)
    with pytest.raises(UserError, match="zh: the tables list 0 utterances"):
        build(data, options())


def test_gold_segments_keep_the_order_and_the_talks_of_the_xml(data: Path) -> None:
    build(data, options())
    german = [u for u in read_corpus(data / "out/dev.jsonl") if u.target_lang == "de"]
    assert [u.recording for u in german] == ["2022.acl-long.268.wav", *["2022.acl-long.110.wav"] * 2]
    assert [u.target for u in german] == ["de R&D 1", "de R&D 2", "de R&D 3"]
    assert [(u.start, u.end) for u in german] == [(0, 17_600), (0, 19_200), (0, 20_800)]
    assert german[0].audio == "acl_6060/dev/segmented_wavs/gold/sent_1.wav"


def test_text_is_read_from_the_xml_where_there_is_no_txt(data: Path) -> None:
    (data / "acl_6060/dev/text/txt/ACL.6060.dev.en-xx.zh.txt").unlink()
    build(data, options())
    assert [u.target for u in read_corpus(data / "out/dev.jsonl") if u.target_lang == "zh"][0] == "zh R&D 1"


def test_a_split_without_any_txt_is_read_from_its_xml(data: Path) -> None:
    shutil.rmtree(data / "acl_6060/dev/text/txt")
    build(data, options())
    first = read_corpus(data / "out/dev.jsonl")[0]
    assert (first.source, first.target) == ("en R&D 1", "de R&D 1")


def test_gold_text_without_a_wav_per_line_is_refused(data: Path) -> None:
    (data / "acl_6060/dev/segmented_wavs/gold/sent_3.wav").unlink()
    with pytest.raises(UserError, match="xml has 3 segments, segmented_wavs/gold has 2 wavs"):
        build(data, options())


def test_gold_text_of_another_split_is_refused(data: Path) -> None:
    path = data / "acl_6060/dev/text/txt/ACL.6060.dev.en-xx.en.txt"
    path.write_text("other\n" * 3, encoding="utf-8")
    with pytest.raises(UserError, match="agree in 0 of 3 lines"):
        build(data, options())


def test_acl_6060_is_a_training_corpus_too(data: Path) -> None:
    (data / "acl_6060/dev").rename(data / "corpora/acl")
    write_acl(data / "acl_6060/dev", "dev", 3)
    choices = CorpusOptions(sources=(Source(name="acl", format="acl6060"),), utterances={"de": 2, "zh": 0}, seed=1)
    report = build(data, choices)
    assert report["train"]["languages"]["de"]["utterances"] == 2


def constrained(held_out: int) -> CorpusOptions:
    source = Source(name="acl6060-dev", format="acl6060", folder="acl_6060/dev")
    return CorpusOptions(sources=(source,), utterances={"de": 0, "zh": 0}, seed=1, held_out_recordings=held_out)


def test_where_dev_is_trained_on_whole_recordings_are_held_out(data: Path) -> None:
    report = build(data, constrained(1))
    trained, dev = (read_corpus(data / f"out/{part}.jsonl") for part in ("train", "dev"))
    assert {u.recording for u in trained}.isdisjoint(report["held_out"])
    assert {u.recording for u in trained} | set(report["held_out"]) == {u.recording for u in dev}
    assert [u for u in dev if u.recording not in report["held_out"]] == trained
    assert len(report["held_out"]) == 1


@pytest.mark.parametrize("held_out", [0, 2])
def test_training_on_all_or_nothing_of_dev_is_refused(data: Path, held_out: int) -> None:
    with pytest.raises(UserError, match=f"{held_out} of the 2 recordings of acl_6060/dev.*write 1 to 1"):
        build(data, constrained(held_out))


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("covost2", "holds no covost_v2.en_"),
        ("europarl-st", "holds no en/audios/"),
        ("acl6060", "one split"),
    ],
)
def test_a_layout_that_cannot_be_read_is_refused_by_name(data: Path, layout: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(data, options(layout=layout))


def test_an_id_that_occurs_twice_is_refused(data: Path) -> None:
    write_plain(data / "corpora/talks", [row(1), row(1)])
    with pytest.raises(UserError, match="'u01' occurs twice"):
        build(data, options())


@pytest.mark.parametrize("text", ["", "id\taudio\n", HEADER + "\tde\n"])
def test_a_table_without_its_columns_is_refused(data: Path, text: str) -> None:
    (data / "corpora/talks/utterances.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"utterances.tsv line 1: expected each of id, audio"):
        build(data, options())
