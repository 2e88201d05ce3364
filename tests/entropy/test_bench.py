from __future__ import annotations

from quantize.bench.entropy import bench_entropy, synthetic_codes


def test_the_bench_reports_rates_speeds_and_bars_of_the_codes_that_it_is_given():
    record = bench_entropy(synthetic_codes(512, 256), runs=1)
    assert record["shape"] == (512, 256)
    assert 1 < record["stream_over_entropy"] < 1.05
    assert record["estimate_over_stream"] < 1.001 and record["sample_over_stream"] < 1.2
    assert set(record["codes_per_second"]) == {"fit", "encode", "decode", "check"}
    assert set(record["passed_bars"]) == {"rate", "decode", "encode"}
