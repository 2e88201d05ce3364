from __future__ import annotations

import pytest

from submission.model.sizes import against_limit, size_text


def test_a_size_is_shown_in_bytes_gb_and_gib():
    assert size_text(4_271_234_567) == "4,271,234,567 bytes = 4.271 GB = 3.978 GiB"
    assert size_text(1_740_776) == "1,740,776 bytes = 0.001741 GB = 0.001621 GiB"


def test_a_size_is_held_against_both_readings_of_the_limit():
    size, binary, decimal = against_limit(4_280_000_000, "4 GiB")
    assert size.startswith("model folder: 4,280,000,000 bytes")
    assert binary == "limit 4 GiB: 4,294,967,296 bytes = 4.295 GB = 4.000 GiB; met, 14,967,296 bytes to spare"
    assert decimal == "read as 4 GB: 4,000,000,000 bytes = 4.000 GB = 3.725 GiB; NOT met, 280,000,000 bytes over"


@pytest.mark.parametrize(("limit", "other"), [("4 GB", "4 GiB"), ("1752 kB", "1752 KiB"), ("3.5 MiB", "3.5 MB")])
def test_every_unit_has_its_other_reading(limit, other):
    assert against_limit(1, limit)[2].startswith(f"read as {other}: ")


def test_a_limit_in_bytes_has_one_reading():
    assert len(against_limit(1, "1000 B")) == 2


def test_the_limit_itself_is_met():
    assert "met, 0 bytes to spare" in against_limit(1000, "1000 B")[1]
