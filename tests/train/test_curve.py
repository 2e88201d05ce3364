from __future__ import annotations

from pathlib import Path

from train.loss_curve import write_plots, write_table

HISTORY = [
    {"step": 0, "eval_loss": 3.5, "eval_bleu_de": 1.0, "eval_bleu_zh": 2.0, "epoch": 0},
    {"step": 2, "loss": 3.0, "learning_rate": 0.1, "grad_norm": 1.5, "epoch": 0.5},
    {"step": 4, "loss": 2.0, "learning_rate": 0.0, "grad_norm": 1.0, "epoch": 1.0},
    {"step": 4, "eval_loss": 2.5, "eval_bleu_de": 31.5, "eval_bleu_zh": 42.0, "epoch": 1.0},
    {"step": 4, "train_runtime": 9.9, "train_loss": 2.5},
]


def test_the_table_has_a_line_per_step(tmp_path: Path) -> None:
    write_table(tmp_path / "curve.csv", HISTORY)
    assert (tmp_path / "curve.csv").read_text(encoding="utf-8").splitlines() == [
        "step,loss,learning_rate,grad_norm,dev_loss,dev_bleu_de,dev_bleu_zh",
        "0,,,,3.5,1.0,2.0",
        "2,3.0,0.1,1.5,,,",
        "4,2.0,0.0,1.0,2.5,31.5,42.0",
    ]


def test_equal_histories_are_equal_pictures(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_plots(tmp_path / name, HISTORY, "a title")
    for name in ("curve.svg", "curve.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert (tmp_path / "one/curve.png").stat().st_size > 10_000


def test_a_course_without_bleu_is_drawn_too(tmp_path: Path) -> None:
    plain = [{k: v for k, v in entry.items() if "bleu" not in k} for entry in HISTORY]
    write_plots(tmp_path, plain, "a title")
    write_table(tmp_path / "curve.csv", plain)
    assert (
        (tmp_path / "curve.csv").read_text(encoding="utf-8").startswith("step,loss,learning_rate,grad_norm,dev_loss\n")
    )
