from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from train.batches import plan_batches


@given(
    lengths=st.lists(st.integers(1, 1000), min_size=1, max_size=400),
    batch_size=st.integers(1, 9),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 5),
)
def test_every_utterance_occurs_once_per_epoch_and_only_the_last_batch_is_short(
    lengths: list[int], batch_size: int, epochs: int, seed: int
) -> None:
    batches = plan_batches(lengths, batch_size, epochs, seed)
    assert Counter(i for batch in batches for i in batch) == dict.fromkeys(range(len(lengths)), epochs)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= batch_size
    assert batches == plan_batches(lengths, batch_size, epochs, seed)


def test_batches_hold_like_lengths() -> None:
    lengths = [(7919 * i) % 1000 for i in range(1000)]
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in plan_batches(lengths, 8, 1, 0)]
    assert sum(spread) / len(spread) < 50


def test_the_order_depends_on_the_seed() -> None:
    assert plan_batches([1] * 100, 8, 1, 0) != plan_batches([1] * 100, 8, 1, 1)
