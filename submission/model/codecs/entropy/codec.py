"""The codec `entropy`: `weight = code * row_scale * column_scale`, the codes in a stream of a budget of bytes.

A weight [rows, columns] is stored in three parts: `stream`, uint8 [budget_bytes], which `layout.py` describes;
`row_scale`, float16 [rows], and `column_scale`, float16 [columns]. Arithmetic is float32: the product of the scales is
exact, so that a weight is rounded once, and then once to the dtype of the model.

With `trellis` the codes follow a trellis (`trellis.py`): a state machine says which of two sets of integers a code is
from, so that steps are finer at the same bytes.

Which steps make the stream fit in its budget is the solver's search: it is given a function that returns the bytes of a
stream exactly. What is left is padded with zeros.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from submission.model.codecs.codec import Codec, Parts, ScaledCodes, TunableWeight
from submission.model.codecs.entropy.layout import Grid, check_header, check_payload, fixed_bytes

if TYPE_CHECKING:
    import numpy as np
    import torch

    from submission.model.codecs.entropy.stream import OpenedStream

SCALES = ("row_scale", "column_scale")
CACHE_ELEMENTS = 1 << 18
"""Weights that are dequantized at a time, so that the elementwise passes stay in a core's cache."""


class EntropySolution(Protocol):
    """A weight [rows, columns] as codes * row_scale * column_scale."""

    @property
    def codes(self) -> torch.Tensor:
        """int16 or int32 [rows, columns]."""

    @property
    def row_scale(self) -> torch.Tensor:
        """float16 [rows], positive."""

    @property
    def column_scale(self) -> torch.Tensor:
        """float16 [columns], positive."""


class EntropySolve(Protocol):
    """The interface `entropy` of a solver."""

    def __call__(
        self, weight: torch.Tensor, size_of: Callable[[torch.Tensor], int], budget_bytes: int, restarts: tuple[int, ...]
    ) -> EntropySolution:
        """Return a solution for weight, float [rows, columns], whose stream fits in budget_bytes, deterministically.

        size_of: codes, int16 or int32 [rows, columns] -> the bytes of their stream. restarts: rows, ascending from 0,
        in which the trellis begins that the codes of every column follow; empty: codes are free. Raises ValueError,
        `what; fix`, where no step fits, and for a number that is not finite.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Entropy(Codec):
    """Integer codes, entropy-coded into a budget of bytes, with a scale per row and a scale per column."""

    interface: ClassVar[str] = "entropy"

    kind: Literal["entropy"] = "entropy"
    trellis: bool = False
    """Whether codes follow a trellis: less error in the same bytes, for more time to solve and to decode."""
    budget_bytes: int | None = None
    """Bytes of the stream. The scales' bytes follow from the weight's shape."""

    def __post_init__(self) -> None:
        if self.budget_bytes is not None and self.budget_bytes < 1:
            raise ValueError(
                f"budget_bytes: {self.budget_bytes} is not positive; leave it out, it is decided per weight"
            )

    @property
    def name(self) -> str:
        """`entropy-123456` or `entropy-trellis-123456`, the budget in bytes; without it before that is allotted."""
        form = f"{self.kind}-trellis" if self.trellis else self.kind
        return form if self.budget_bytes is None else f"{form}-{self.budget_bytes}"

    @property
    def summary(self) -> str:
        """What a description and a table call it."""
        form = "trellis-coded integers of 8 states" if self.trellis else "integer codes"
        return f"entropy-coded {form} (range ANS), a float16 scale per row and per column"

    def technique(self, solver: str | None) -> str:
        """Return the description's words for codes that a solver of this name found."""
        return f"{solver} quantization to {self.summary}" if solver else f"Quantization to {self.summary}"

    def parts(self, shape: tuple[int, ...]) -> Parts:
        """Return stream, row_scale and column_scale with dtype and shape; ValueError for a budget that is too small."""
        rows, columns = shape
        stream_bytes, least = self.budget_bytes or 0, fixed_bytes(rows, columns, trellis=self.trellis)
        if stream_bytes < least:
            what = (
                f"{stream_bytes} bytes do not hold a stream of {rows} × {columns} codes, which takes {least} at least"
            )
            raise ValueError(f"{what}; allot more bytes")
        return {"stream": ("U8", (stream_bytes,)), "row_scale": ("F16", (rows,)), "column_scale": ("F16", (columns,))}

    def steps(self) -> dict[str, Codec]:
        """Return no smaller codec."""
        return {}  # smaller is a matter of the target that budgets are allotted from

    def encode(self, weight: torch.Tensor, solve: EntropySolve) -> dict[str, torch.Tensor]:
        """Return the parts of a weight, float [rows, columns]; ValueError where it does not fit its budget."""
        import torch

        from submission.model.codecs.entropy.contexts import fit_contexts
        from submission.model.codecs.entropy.stream import encode, stream_bytes

        budget, workers = self.budget_bytes or 0, torch.get_num_threads()

        def size_of(codes: torch.Tensor) -> int:
            array = _row_major(codes)
            return stream_bytes(array, fit_contexts(array, trellis=self.trellis, workers=workers), workers=workers)

        grid = Grid(rows=weight.shape[0], columns=weight.shape[1], trellis=self.trellis)
        solution = solve(weight, size_of, budget, grid.restarts)
        codes = _row_major(solution.codes)
        contexts = fit_contexts(codes, trellis=self.trellis, workers=workers)
        stream = torch.from_numpy(encode(codes, contexts, budget, workers=workers))
        parts = {"stream": stream, "row_scale": solution.row_scale.half(), "column_scale": solution.column_scale.half()}
        for name in SCALES:
            _check_scales(name, parts[name].numpy().astype("<f2").tobytes())
        return parts

    def decode(
        self,
        parts: Mapping[str, torch.Tensor],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        rows: slice | torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the weight or some rows, in dtype: code × row_scale × column_scale in float32, rounded once."""
        import torch

        stream, device = self._opened(parts, shape), parts["stream"].device
        if not isinstance(rows, torch.Tensor):
            begin, end, _ = slice(None).indices(shape[0]) if rows is None else rows.indices(shape[0])
            weights = torch.empty((max(0, end - begin), shape[1]), dtype=dtype, device=device)
            for block, part in _pieces(stream, parts, range(begin, end), dtype, CACHE_ELEMENTS):
                weights[block.start - begin : block.stop - begin] = part
            return weights
        weights = torch.empty((len(rows), shape[1]), dtype=dtype, device=device)
        size = stream.header.grid.block_rows
        for index in (rows // size).unique().tolist():
            wanted = (rows // size == index).nonzero().flatten()
            inside = rows[wanted]
            first, last = int(inside.min()), int(inside.max())
            codes = _scaled(stream, parts, range(first, last + 1))
            weights[wanted] = codes.dequantize(dtype, inside - first)
        return weights

    def blocks(
        self, parts: Mapping[str, torch.Tensor], shape: tuple[int, ...], dtype: torch.dtype, elements: int
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield the weight in blocks of rows; blocks of the stream are decoded once each."""
        yield from _pieces(self._opened(parts, shape), parts, range(shape[0]), dtype, elements)

    def scaled_codes(self, parts: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> ScaledCodes:
        """Return all codes as int8 with their scales, and what is beyond int8 as a sparse remainder."""
        return _scaled(self._opened(parts, shape), parts, range(shape[0]))

    def tunable(self, parts: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> TunableWeight:
        """Return the weight as a function of the scales of its rows and columns."""
        import torch

        codes = self.scaled_codes(parts, shape)

        def dequantize(tuned: Mapping[str, torch.Tensor], rows: slice | torch.Tensor) -> torch.Tensor:
            return replace(codes, **tuned).dequantize(torch.float32, rows)

        return TunableWeight(scales=SCALES, offsets=(), dequantize=dequantize)

    def check(self, parts: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> None:
        """Check header, checksums and scales.

        Blocks are not decoded, their checksums stand for that: of blocks that are altered together with them, decoding
        refuses some and returns other codes for the rest.
        """
        self.check_stored(lambda suffix: parts[suffix].cpu().numpy().tobytes(), shape)

    def check_stored(self, read: Callable[[str], bytes], shape: tuple[int, ...]) -> None:
        """Check what the standard library can of the stored bytes; ValueError names the part.

        read: suffix of a part -> its bytes.
        """
        for name in SCALES:
            _check_scales(name, read(name))
        stream = read("stream")
        try:
            size = self.budget_bytes or 0
            check_payload(stream, check_header(stream, shape[0], shape[1], size, trellis=self.trellis))
        except ValueError as error:
            raise ValueError(f"stream: {error}") from error

    def _opened(self, parts: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> OpenedStream:
        from submission.model.codecs.entropy.stream import open_stream

        try:
            return open_stream(parts["stream"].cpu().numpy(), (shape[0], shape[1]), trellis=self.trellis)
        except ValueError as error:
            raise ValueError(f"stream: {error}") from error


def _check_scales(name: str, data: bytes) -> None:
    """Raise ValueError where a scale, float16, is not positive and finite."""
    for (bits,) in struct.iter_unpack("<H", data):
        if not 0 < bits < 0x7C00:
            raise ValueError(f"{name}: holds a number that is not positive and finite; the file is damaged")


def _row_major(codes: torch.Tensor) -> np.ndarray:
    """Return codes as an array that the coder reads without another copy."""
    return codes.cpu().contiguous().numpy()


def _pieces(
    stream: OpenedStream, parts: Mapping[str, torch.Tensor], rows: range, dtype: torch.dtype, elements: int
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield some rows of a weight in dtype, about `elements` weights at a time; blocks are decoded once each."""
    grid = stream.header.grid
    size, step = grid.block_rows, max(1, elements // grid.columns)
    begin = rows.start
    while begin < rows.stop:
        end = min(rows.stop, (begin // size + 1) * size)
        codes = _scaled(stream, parts, range(begin, end))
        for start in range(begin, end, step):
            stop = min(start + step, end)
            yield slice(start, stop), codes.dequantize(dtype, slice(start - begin, stop - begin))
        begin = end


def _scaled(stream: OpenedStream, parts: Mapping[str, torch.Tensor], rows: range) -> ScaledCodes:
    """Return the codes of some rows, on the device of the parts; ValueError where a block cannot be decoded."""
    import torch

    try:
        decoded = stream.decode(rows=rows, workers=torch.get_num_threads())
    except ValueError as error:
        raise ValueError(f"stream: {error}") from error
    device = parts["stream"].device
    return ScaledCodes(
        codes=torch.from_numpy(decoded.codes).to(device),
        row_scale=parts["row_scale"][rows.start : rows.stop],
        column_scale=parts["column_scale"],
        positions=torch.from_numpy(decoded.positions).to(device),
        remainders=torch.from_numpy(decoded.remainders).to(device),
    )
