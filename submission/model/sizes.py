"""Format sizes: always with their unit, GB and GiB side by side, since the track's texts mix the two."""

from __future__ import annotations

from submission.system.campaign import UNITS, size_bytes

GB = 10**9
GIB = 2**30


def size_text(size: int) -> str:
    """Return a size in bytes with all its units: `4,271,234,567 bytes = 4.271 GB = 3.978 GiB`."""
    return f"{size:,} bytes = {in_unit(size, GB)} GB = {in_unit(size, GIB)} GiB"


def in_unit(size: int, unit: int) -> str:
    """Return a size in a unit; small ones get more decimals, so that the miniature's do not all become 0.003."""
    return f"{size / unit:.{3 if size >= GB // 10 else 6}f}"


def against_limit(size: int, limit: str | None) -> list[str]:
    """Return lines that compare a size with a campaign's limit, `4 GiB`, and with its other reading, 4 GB.

    Without a limit there is the size alone.
    """
    lines = [f"model folder: {size_text(size)}"]
    if limit is None:
        return [*lines, "the campaign states no limit"]
    lines.append(f"limit {limit}: {_verdict(size, size_bytes(limit))}")
    other = other_reading(limit)
    if other is not None:
        lines.append(f"read as {other}: {_verdict(size, size_bytes(other))}")
    return lines


def _verdict(size: int, limit: int) -> str:
    spare = limit - size
    verdict = f"met, {spare:,} bytes to spare" if spare >= 0 else f"NOT met, {-spare:,} bytes over"
    return f"{size_text(limit)}; {verdict}"


def other_reading(limit: str) -> str | None:
    """Return a limit with the decimal unit in place of the binary one, or the other way round; None for bytes."""
    number, unit = limit[: -len(limit.lstrip("0123456789."))].strip(), limit.lstrip("0123456789. ")
    other = unit.replace("i", "").replace("KB", "kB") if "i" in unit else f"{unit[:-1].upper()}iB"
    return f"{number} {other}" if other in UNITS else None
