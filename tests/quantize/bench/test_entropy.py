from __future__ import annotations

from collections import Counter
from math import log2

import numpy as np
import pytest

from quantize.bench.entropy import (
    bench_entropy,
    conditional_entropy_bits,
    entropy_text,
    solved_codes,
    synthetic_weight,
)
from submission.model.codecs.entropy.contexts import fit_contexts


def test_the_bench_reports_rates_speeds_and_bars_of_the_codes_that_it_is_given():
    codes = np.rint(synthetic_weight(512, 256) * 2**1.5).astype(np.int32)
    record = bench_entropy(codes, runs=1)
    assert record["shape"] == (512, 256)
    assert 1 < record["stream_over_entropy"] < 1.05
    assert record["estimate_over_stream"] < 1.001 and record["sample_over_stream"] < 1.2
    assert set(record["codes_per_second"]) == {"fit", "encode", "decode", "check"}
    assert set(record["passed_bars"]) == {"rate", "decode", "encode"}


def test_codes_of_the_solver_are_measured_with_a_trellis_and_without():
    figures = {
        str(trellis): bench_entropy(solved_codes(512, 128, trellis=trellis), trellis=trellis, runs=1)
        for trellis in (False, True)
    }
    for record in figures.values():
        assert 3.4 < record["bits_per_code"] < 4.4
        assert 1 < record["stream_over_entropy"] < 1.1, "tables and lanes of a small weight cost some percent"
    text = entropy_text(figures)
    assert "True codes, 512 x 128" in text and "missed: " in text


def test_the_entropy_with_a_trellis_is_that_of_the_index_in_its_superset():
    codes = solved_codes(512, 64, trellis=True)
    contexts = fit_contexts(codes, trellis=True)
    tables = Counter(), Counter()
    rows, columns = contexts.row_classes.astype(int), contexts.column_classes.astype(int)
    for row, line in zip(rows, codes.astype(int), strict=True):
        for column, code, centre in zip(columns, line, contexts.centres, strict=True):
            context = (row + column, code % 2)
            tables[0][context] += 1
            tables[1][context, code // 2 - centre] += 1
    expected = sum(count * log2(tables[0][context] / count) for (context, _), count in tables[1].items())
    assert conditional_entropy_bits(codes, contexts) == pytest.approx(expected)
