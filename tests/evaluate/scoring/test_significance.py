"""Paired tests: sacrebleu's own figures, and properties that any test of two systems has."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys

import pytest

from evaluate.scoring.metrics import METRICS
from evaluate.scoring.significance import paired_bootstrap

WORDS = ["der", "Hund", "läuft", "nach", "Hause", "und", "schläft", "im", "Garten", "gut"]


def noisy(lines: list[str], share: float, seed: int) -> list[str]:
    """Return lines of which a share of the words is another one."""
    rng = random.Random(seed)
    return [" ".join(rng.choice(WORDS) if rng.random() < share else word for word in line.split()) for line in lines]


REFERENCES = [" ".join(random.Random(n).choices(WORDS, k=5 + n % 7)) for n in range(60)]
GOOD, FAIR, BAD = noisy(REFERENCES, 0.2, 1), noisy(REFERENCES, 0.25, 2), noisy(REFERENCES, 0.6, 3)


@pytest.mark.parametrize(("first", "second"), [(GOOD, FAIR), (GOOD, BAD)])
def test_values_and_p_values_are_those_of_sacrebleus_command_line(tmp_path, first, second):
    for name, lines in (("first", first), ("second", second), ("ref", REFERENCES)):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "ref", "-i", "first", "second", "-m", "bleu", "chrf", "ter"]
    done = subprocess.run(
        [*command, "--paired-bs", "-w", "6", "--format", "latex"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "SACREBLEU_SEED"},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line for line in done.stdout.splitlines() if " & " in line and "System" not in line]
    values = [re.findall(r"& +([0-9.]+) \(", row) for row in rows]
    p_values = re.findall(r"p = ([0-9.]+)", rows[1])
    ours = paired_bootstrap(first, second, REFERENCES, "de")
    assert [d.metric for d in ours] == list(METRICS)
    for system, found in (("first", values[0]), ("second", values[1])):
        assert [f"{getattr(d, system):.6f}" for d in ours] == found
    assert [f"{d.p_value:.4f}" for d in ours] == p_values


def test_a_system_against_itself_differs_by_nothing_and_by_chance():
    for difference in paired_bootstrap(GOOD, GOOD, REFERENCES, "de"):
        found = (difference.difference, difference.low, difference.high, difference.p_value)
        assert found == (0.0, 0.0, 0.0, 1.0)


def test_a_clear_difference_is_significant_and_has_the_sign_of_the_second_less_the_first():
    bleu, chrf, ter = paired_bootstrap(GOOD, BAD, REFERENCES, "de")
    assert bleu.high < 0 and chrf.high < 0 and ter.low > 0
    assert all(d.p_value < 0.01 and d.low <= d.difference <= d.high for d in (bleu, chrf, ter))


def test_turning_the_systems_around_turns_the_difference_around():
    for there, back in zip(
        paired_bootstrap(GOOD, FAIR, REFERENCES, "de"), paired_bootstrap(FAIR, GOOD, REFERENCES, "de"), strict=True
    ):
        assert (there.low, there.high, there.p_value) == pytest.approx((-back.high, -back.low, back.p_value))


def test_other_numbers_of_lines_are_no_pair():
    with pytest.raises(ValueError, match="2 and 1 lines, 2 references"):
        paired_bootstrap(["a", "b"], ["a"], ["a", "b"], "de")
