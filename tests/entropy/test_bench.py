from __future__ import annotations

from quantize.bench import int8_products
from quantize.bench.entropy import bench_entropy, synthetic_codes


def test_the_bench_reports_rates_speeds_and_bars_of_the_codes_that_it_is_given():
    record = bench_entropy(synthetic_codes(512, 256), runs=1)
    assert record["shape"] == (512, 256)
    assert 1 < record["stream_over_entropy"] < 1.05
    assert record["estimate_over_stream"] < 1.001 and record["sample_over_stream"] < 1.2
    assert set(record["codes_per_second"]) == {"fit", "encode", "decode", "check"}
    assert set(record["met"]) == {"rate", "decode", "encode"}


def test_products_are_measured_at_every_shape_and_number_of_rows(monkeypatch):
    monkeypatch.setattr(int8_products, "SHAPES", ((64, 96), (32, 64)))
    monkeypatch.setattr(int8_products, "INPUT_ROWS", (1, 3))
    found = int8_products.bench_products(runs=1)
    assert [(row["shape"], row["rows"]) for row in found] == [
        ((64, 96), 1),
        ((64, 96), 3),
        ((32, 64), 1),
        ((32, 64), 3),
    ]
    assert all(row["bfloat16_ms"] > 0 and row["codes_ms"] > 0 for row in found)
