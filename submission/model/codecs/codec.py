"""The interface of a codec: how one weight is stored, and everything that depends on it."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

if TYPE_CHECKING:
    import torch

Parts = dict[str, tuple[str, tuple[int, ...]]]
"""Suffix of each stored part -> (dtype as a safetensors header spells it, shape)."""


class GroupedCodes(Protocol):
    """A codec whose weight is `(code - zero) * scale` per group of a row, as integer kernels compute with it.

    The first dimension of each of its parts is the weight's rows, so parts are sliced by rows.
    """

    codes_part: ClassVar[str]
    """Suffix of the part that holds the codes; the others hold scales and zero-points."""

    @property
    def bits(self) -> int:
        """Width of a code."""

    @property
    def group_size(self) -> int:
        """Neighbouring weights of a row that share a scale and a zero-point."""

    def pack(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the part of codes, uint8 [rows, columns]."""

    def unpack(self, part: torch.Tensor, columns: int) -> torch.Tensor:
        """Return uint8 [rows, columns]."""

    def scale_and_zero(self, parts: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Return both as float32 [rows, groups]; `codes_part` is not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledCodes:
    """A decoded weight as `(codes + remainders) * row_scale * column_scale`, as 8-bit kernels compute with it."""

    codes: torch.Tensor
    """int8 [rows, columns], within ±127."""
    row_scale: torch.Tensor
    """float16 [rows]."""
    column_scale: torch.Tensor
    """float16 [columns]."""
    positions: torch.Tensor
    """int64, row * columns + column, ascending: the few codes that do not fit in 8 bits."""
    remainders: torch.Tensor
    """int64: what is to be added to the codes there."""

    def dequantize(self, dtype: torch.dtype, rows: slice | torch.Tensor) -> torch.Tensor:
        """Return some rows of the weight in dtype: a slice, or int64 [n] of row numbers; float32, rounded once."""
        codes, row_scale = self.codes[rows], self.row_scale[rows].float()
        step = row_scale.unsqueeze(1) * self.column_scale.float()  # exact: 11 bits times 11 bits
        exact = codes.float()
        place, column, remainders = self.remainders_of(rows)
        if place.numel():
            exact.index_put_((place, column), remainders.to(exact.dtype), accumulate=True)
        return step.mul_(exact).to(dtype)

    def remainders_of(self, rows: slice | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return of the remainders in some rows their places among these rows, their columns, and themselves."""
        import torch

        count, columns = self.codes.shape
        if isinstance(rows, slice):
            begin, end, _ = rows.indices(count)
            limits = torch.tensor([begin * columns, max(begin, end) * columns], device=self.positions.device)
            first, last = torch.searchsorted(self.positions, limits).tolist()
            here = self.positions[first:last]
            return here // columns - begin, here % columns, self.remainders[first:last]
        first = torch.searchsorted(self.positions, rows * columns)
        counts = torch.searchsorted(self.positions, (rows + 1) * columns) - first
        place = torch.arange(len(rows), device=rows.device).repeat_interleave(counts)
        offset = torch.arange(len(place), device=rows.device) - (counts.cumsum(0) - counts)[place]
        found = first[place] + offset
        return place, self.positions[found] % columns, self.remainders[found]


@dataclass(frozen=True, slots=True, kw_only=True)
class TunableWeight:
    """A weight as a function of the stored numbers that scale and shift its codes; the codes are fixed."""

    scales: tuple[str, ...]
    """Suffixes of the float16 parts that are factors: a change is in proportion to the number itself."""
    offsets: tuple[str, ...]
    """Suffixes of the float16 parts that are added: a change is in proportion to the part's root mean square."""
    dequantize: Callable[[Mapping[str, torch.Tensor], slice | torch.Tensor], torch.Tensor]
    """(suffix -> these parts in float32, rows as in `decode`) -> float32 [rows, columns], differentiable in the parts.
    Of numbers that float16 holds it is what `decode` returns."""


class Codec(ABC):
    """How one weight [rows, columns] is stored: which parts, how they are found, and how they become a weight again.

    A subclass is a frozen dataclass whose fields are its options, as recipes and the packed model's `config.json`
    spell them; it is one file of this package and one line of `CODECS`. Nothing outside that file knows what the parts
    hold: neither that they have rows, nor in which order. What needs torch imports it where it is used, since sizes
    are computed where there is no torch.

    A codec whose parts depend on a size that is decided per weight has a field `budget_bytes: int | None = None`:
    recipes leave it out, `allotted` fills it in before anything is encoded, and `config.json` holds it.
    """

    __slots__ = ()

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]  # a subclass is a dataclass

    kind: str

    interface: ClassVar[str | None] = None
    """Name of the call that `encode` makes of a solver, a key of `Solver.functions`; None for a codec without one."""

    budget_bytes: int | None = None
    """Bytes of what one weight takes, or of those of its parts that the codec says, where these are decided per weight;
    None otherwise and before that."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The codec in one word, `affine4g128`: different for different options, the budget included."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """What is stored, for a person: `4 bits, float16 scale and zero-point per 128 weights of a row`."""

    @abstractmethod
    def technique(self, solver: str | None) -> str:
        """Return how a model's description names the compression, alike for every budget.

        solver: what the solver is called there, `HQQ`; None where none serves this codec.
        """

    @abstractmethod
    def parts(self, shape: tuple[int, ...]) -> Parts:
        """Return what a weight [rows, columns] is stored as, from its shape (and the budget) alone.

        Raises ValueError, `what; fix`, for a weight that the codec stores under no circumstances.
        """

    @abstractmethod
    def encode(self, weight: torch.Tensor, solve: Any) -> dict[str, torch.Tensor]:
        """Return suffix -> part of a weight, float [rows, columns].

        solve: what `interface` names, bound to this weight; None for a codec without one. Raises ValueError, `what;
        fix`, for a weight that the codec cannot store.
        """

    @abstractmethod
    def decode(
        self,
        parts: Mapping[str, torch.Tensor],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        rows: slice | torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the weight of this shape in dtype, or some of its rows: a slice, or int64 [n] of row numbers."""

    @abstractmethod
    def check(self, parts: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> None:
        """Raise ValueError, `<part>: <what is wrong>`, for parts that no weight of this shape is encoded as.

        Dtypes and shapes are those of `parts(shape)`; the numbers come from an untrusted file.
        """

    @abstractmethod
    def steps(self) -> dict[str, Codec]:
        """Return what changes -> the codec, for each option that has a next value that stores less."""

    def blocks(
        self, parts: Mapping[str, torch.Tensor], shape: tuple[int, ...], dtype: torch.dtype, elements: int
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield the weight in blocks of whole rows, in order: which rows, and these rows in dtype.

        elements: about how many weights a block holds at most. For a codec whose `decode` reads its parts from the
        start each time, a version that reads them once is faster.
        """
        step = max(1, elements // max(shape[1], 1))
        for start in range(0, shape[0], step):
            rows = slice(start, min(start + step, shape[0]))
            yield rows, self.decode(parts, shape, dtype, rows)

    def grouped_codes(self) -> GroupedCodes | None:
        """Return what integer kernels need in order to compute with the parts; None where none of them can."""
        return None

    def scaled_codes(self, parts: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> ScaledCodes | None:
        """Return the weight as 8-bit codes with scales of rows and columns; None where it is no such product.

        For a codec whose `decode` is slow: loading for inference computes it once and keeps it in memory.
        """
        return None

    def tunable(self, parts: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> TunableWeight | None:
        """Return the weight as a function of its scales and zero-points; None where it is none of any.

        Recovery tunes these with the codes fixed, and stores them at the dtypes and shapes that they have.
        """
        return None

    def check_stored(self, read: Callable[[str], bytes], shape: tuple[int, ...]) -> None:
        """Raise ValueError as `check` does, for what follows from the stored bytes on a bare Python.

        read: suffix of a part -> its bytes, at the dtypes and shapes of `parts(shape)`.
        """
        return  # by default whatever bytes stand there decode to some weight

    @property
    def takes_budget(self) -> bool:
        """Whether the size of the parts is decided per weight."""
        return any(field.name == "budget_bytes" for field in dataclasses.fields(self))

    def allotted(self, budget_bytes: int | None) -> Self:
        """Return the codec with this budget for one weight; None takes the budget away."""
        return dataclasses.replace(self, budget_bytes=budget_bytes) if self.takes_budget else self

    def to_dict(self) -> dict[str, Any]:
        """Return the options as a JSON object; those that are not set are left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}
