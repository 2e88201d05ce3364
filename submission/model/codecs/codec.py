"""What a codec is: how one weight is stored, and everything that depends on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


class Solution(Protocol):
    """A weight [rows, columns] as (codes - zero) * scale, group by group along its rows."""

    codes: torch.Tensor
    """uint8 [rows, columns], each below 2 ** bits."""
    scale: torch.Tensor
    """float32 [rows, groups]."""
    zero: torch.Tensor
    """float32 [rows, groups]."""


class Solve(Protocol):
    """Finds a solution: what a codec is given to encode with."""

    def __call__(self, weight: torch.Tensor, bits: int, group_size: int) -> Solution: ...


class Codec(ABC):
    """How one weight [rows, columns] is stored: which parts, how they are found, and how they become a weight again.

    A subclass is a frozen dataclass whose fields are its options, as recipes and the packed model's `config.json`
    spell them; it stands in one file of this package and in one line of `CODECS`. The first dimension of every part
    is the weight's row, so that rows can be decoded apart. What needs torch imports it where it is called, since sizes
    are asked for where there is no torch.
    """

    __slots__ = ()

    kind: str

    @property
    @abstractmethod
    def name(self) -> str:
        """The codec in one word, `affine4g128`: different for different options."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """What is stored, for a person: `4 bits, float16 scale and zero-point per 128 weights of a row`."""

    @abstractmethod
    def parts(self, shape: tuple[int, ...]) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return suffix -> (safetensors dtype, shape) of what a weight [rows, columns] is stored as."""

    @abstractmethod
    def encode(self, weight: torch.Tensor, solve: Solve) -> dict[str, torch.Tensor]:
        """Return suffix -> part of a weight, float [rows, columns].

        Raises ValueError, `what; how to mend it`, for a weight that the codec cannot store.
        """

    @abstractmethod
    def decode(self, parts: Mapping[str, torch.Tensor], columns: int, dtype: torch.dtype) -> torch.Tensor:
        """Return the weight [rows, columns] in dtype, from the parts of any of its rows."""

    @abstractmethod
    def check(self, parts: Mapping[str, torch.Tensor], columns: int) -> None:
        """Raise ValueError, `<part>: <what is wrong>`, for parts that no weight is encoded as."""

    @abstractmethod
    def steps(self) -> dict[str, Codec]:
        """Return what changes -> the codec, for each option that has a next value that stores less."""

    def to_dict(self) -> dict[str, Any]:
        """Return the options as a JSON object; those that are not set are left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}  # type: ignore[call-overload]
