"""Small numbers that belong to a stream, packed as Rice codes: row classes, column classes, shifts of contexts.

A list of numbers 0 … 127 is a centre (7 bits), a width k (3 bits), and for every number z = its difference from the
centre in zigzag form (0, -1, 1, -2 …): z >> k ones, a zero, and the k low bits of z (Rice 1979). Lists follow each
other without gaps, the first bit is the highest of the first byte, and zeros fill up the last byte. Classes of real
weights spread over few values, so that this takes 2 to 4 bits for each. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

HIGHEST_NUMBER = 127
_LIST_BITS = 10
"""Bits of a list's centre and width."""


def least_bytes(numbers: int, lists: int) -> int:
    """Return the fewest bytes that so many numbers in so many lists take: a bit for each number."""
    return -(-(_LIST_BITS * lists + numbers) // 8)


def list_bits(numbers: Sequence[int]) -> str:
    """Return a list's bits, as a text of 0 and 1, with the width that makes them the fewest."""
    centre = sorted(numbers)[len(numbers) // 2]
    zigzag = [2 * (n - centre) if n >= centre else 2 * (centre - n) - 1 for n in range(HIGHEST_NUMBER + 1)]
    counts = [0] * len(zigzag)
    for number in numbers:
        counts[number] += 1

    def size(width: int) -> int:
        return sum(n * ((z >> width) + 1 + width) for n, z in zip(counts, zigzag, strict=True))

    width = min(range(8), key=size)
    low = (1 << width) - 1
    words = ["1" * (z >> width) + "0" + (format(z & low, f"0{width}b") if width else "") for z in zigzag]
    return format(centre, "07b") + format(width, "03b") + "".join([words[number] for number in numbers])


def pack_lists(lists: Iterable[Sequence[int]]) -> bytes:
    """Return the bytes of lists of numbers 0 … 127, none of them empty."""
    bits = "".join(list_bits(numbers) for numbers in lists)
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


class ListReader:
    """Reads lists one after the other; ValueError for bits that are no such lists."""

    def __init__(self, section: bytes) -> None:
        self._bits = format(int.from_bytes(section, "big"), f"0{8 * len(section)}b") if section else ""
        self._place = 0

    def read(self, count: int) -> bytes:
        """Return the next list, of so many numbers."""
        bits, place = self._bits, self._place + _LIST_BITS
        if place + count > len(bits):
            raise ValueError(f"classes: {len(bits)} bits do not hold {count} more numbers; the file is damaged")
        centre, width = int(bits[place - 10 : place - 3], 2), int(bits[place - 3 : place], 2)
        numbers = bytearray(count)
        for i in range(count):
            stop = bits.find("0", place, place + 2 * HIGHEST_NUMBER + 2)
            end = stop + 1 + width
            if stop < 0 or end > len(bits):
                raise ValueError("classes: a number is cut off or too large; the file is damaged")
            zigzag = (stop - place) << width | int("0" + bits[stop + 1 : end], 2)
            number = centre + ((zigzag >> 1) ^ -(zigzag & 1))
            if not 0 <= number <= HIGHEST_NUMBER:
                raise ValueError(f"classes: {number} is not in 0 … {HIGHEST_NUMBER}; the file is damaged")
            numbers[i], place = number, end
        self._place = place
        return bytes(numbers)

    def finish(self) -> None:
        """Raise ValueError where more is left than the zeros of a last byte."""
        rest = self._bits[self._place :]
        if len(rest) > 7 or "1" in rest:
            raise ValueError(f"classes: {len(rest)} bits are left over; the file is damaged")
