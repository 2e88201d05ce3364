"""Quality per byte on a real language model: what `nox -s bench_lm` runs."""
