"""COMET: what is looked at before it is run, and how its figures join the others. Running it needs its environment."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch

from evaluate.scoring.comet import check_environment, find_encoder, read_checkpoint, read_hparams, segment_scores
from evaluate.scoring.score import NO_SOURCE, CometScores, ScoredLine, with_comet
from evaluate.scoring.score_files import read_comet_scores, read_lines, write_comet_scores
from submission.errors import UserError
from submission.store.input_files import InputDigests
from submission.system.data_folder import comet_digest
from tests.evaluate.synthetic import metric_score


class Harmful:
    def __reduce__(self):
        return print, ("run",)


def test_another_environment_is_refused_by_what_it_lacks():
    with pytest.raises(UserError, match="lacks unbabel-comet; run `nox -s score`"):
        check_environment()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}, "hyper_parameters": {}, "x": Harmful()}, "is refused: it names print"),
        ({"state_dict": {}}, "lacks 'hyper_parameters'"),
        ([1], "lacks 'state_dict'"),
    ],
)
def test_a_checkpoint_of_anything_but_tensors_and_containers_is_refused(tmp_path, capsys, content, message):
    torch.save(content, tmp_path / "model.ckpt", pickle_module=pickle)
    with pytest.raises(UserError, match=message):
        read_checkpoint(tmp_path / "model.ckpt")
    assert capsys.readouterr().out == ""


def test_a_torn_checkpoint_is_refused(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match="is not a checkpoint"):
        read_checkpoint(tmp_path / "model.ckpt")


def test_a_model_that_needs_no_reference_is_refused(tmp_path):
    (tmp_path / "hparams.yaml").write_text("class_identifier: referenceless_regression_metric\n", encoding="utf-8")
    with pytest.raises(UserError, match="got 'referenceless_regression_metric'"):
        read_hparams(tmp_path / "hparams.yaml")


def test_an_encoder_without_its_tokenizer_is_refused_and_one_beside_the_model_is_taken(tmp_path):
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder/config.json").touch()
    with pytest.raises(UserError, match=r"holds none of tokenizer\.json"):
        find_encoder(tmp_path, "xlm-roberta-large")
    (tmp_path / "encoder/tokenizer.json").touch()
    assert find_encoder(tmp_path, "xlm-roberta-large") == tmp_path / "encoder"


def test_a_folder_that_is_no_checkpoint_is_refused_with_what_it_lacks(tmp_path):
    with pytest.raises(UserError, match=r"lacks hparams\.yaml and checkpoints/model\.ckpt; hf download"):
        comet_digest(tmp_path, InputDigests(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "holds no lines"),
        (
            [ScoredLine(recording="a", source=None, hypothesis="b", reference="c")],
            "line 1: source: expected a text, got None",
        ),
    ],
)
def test_lines_that_comet_cannot_score_are_refused_by_number(lines, message):
    with pytest.raises(UserError, match=message):
        segment_scores(None, lines, "here")


def test_its_scores_join_the_others_and_each_test_set_without_one_has_a_reason():
    bleu = [{"pair": "en-de", "testset": name, "metric": "BLEU"} for name in ("ACL", "TALKS")]
    testsets = [{"pair": "en-de", "testset": name, "comet": "not computed"} for name in ("ACL", "TALKS")]
    plain = {"comet": {}, "scores": bleu, "testsets": testsets}
    comet = [
        CometScores(pair="en-de", testset="ACL", reason="", scores=(metric_score("COMET"),), segments=(1.5,)),
        CometScores(pair="en-de", testset="TALKS", reason=NO_SOURCE),
    ]
    merged = with_comet(plain, comet, "d" * 64)
    assert [(s["testset"], s["metric"]) for s in merged["scores"]] == [
        ("ACL", "BLEU"),
        ("ACL", "COMET"),
        ("TALKS", "BLEU"),
    ]
    assert [t["comet"] for t in merged["testsets"]] == ["", NO_SOURCE]
    assert merged["comet"] == {"state": "computed", "reason": "", "model_sha256": "d" * 64}
    nothing = with_comet(plain, [replace(one, scores=(), reason=NO_SOURCE) for one in comet], "d" * 64)
    assert (nothing["comet"]["state"], len(nothing["scores"])) == ("not computed", 2)


def test_comet_json_reads_back_as_written(tmp_path):
    scores = CometScores(
        testset="ACL", pair="en-de", reason="", scores=(metric_score("COMET"),), segments=(1.0, 2.0), device="cpu"
    )
    write_comet_scores(tmp_path, scores)
    assert read_comet_scores(tmp_path) == scores


def test_a_damaged_line_of_lines_jsonl_is_named(tmp_path):
    (tmp_path / "lines.jsonl").write_text('{"source": "a", "reference": "b"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"lines\.jsonl line 1: is not a scored line"):
        read_lines(tmp_path / "lines.jsonl")
