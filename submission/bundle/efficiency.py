"""How fast and in how much memory a bundle decodes, as measured on one machine: the record and its lines of text.

The figures are a machine's. So they are no stage of a build, no key holds them, and a bundle is complete without them.
Only what was counted and timed is stored; rates follow from it.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from submission.counting import counted
from submission.model.sizes import GIB
from submission.store.digests import canonical_json, sha256_text, write_text
from submission.system.schema import parse

EFFICIENCY_FILE = "efficiency.json"
FORMAT: Literal["decoding-efficiency"] = "decoding-efficiency"
ALL_RECORDINGS = "recordings"
"""Name of the test set where the recordings are none of the campaign's."""

BATCH_SIZES = (1, 16, 64, 256)
"""As the organisers of the sister task measure."""
MOST_BATCHES = 16
MOST_RUNS = 100
MOST_NUMBER = 1 << 50
LONGEST_TEXT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredMachine:
    """What the figures depend on besides the bundle."""

    processor: str
    cores: int
    """Processors that the process was given."""
    threads: int
    """Of torch."""
    memory_bytes: int
    system: str
    device: str
    """Of the model: `cpu`, or the name of a GPU."""
    versions: dict[str, str]
    """Library -> version."""

    def __post_init__(self) -> None:
        _check_numbers(cores=self.cores, threads=self.threads, memory_bytes=self.memory_bytes)
        texts = (self.processor, self.system, self.device, *self.versions, *self.versions.values())
        for text in texts:
            if len(text) > LONGEST_TEXT or not text.isprintable() or text != text.strip():
                raise ValueError("machine: a text is no short printable line; measure the bundle again")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchEfficiency:
    """What was measured with one size of batches, in a process of its own."""

    batch_size: int
    rows: int
    """Segments of the largest batch that was formed: fewer than batch_size where there were not so many."""
    load_seconds: float
    """From the start of the process, imports included, until the model was loaded."""
    warm_up_seconds: float
    """Of translating one segment, which proves and compiles kernels."""
    seconds: tuple[float, ...]
    """Of translating all segments, for each run: audio to text."""
    tokens: int
    """Of the hypotheses of one run, by the model's tokenizer, and an end token each."""
    peak_bytes: int
    """Most resident memory of the process."""
    device_peak_bytes: int | None = None
    """Most memory of the GPU that was reserved; None on a processor."""

    def __post_init__(self) -> None:
        _check_numbers(batch_size=self.batch_size, rows=self.rows, tokens=self.tokens, peak_bytes=self.peak_bytes)
        _check_numbers(load_seconds=self.load_seconds, warm_up_seconds=self.warm_up_seconds)
        _check_numbers(**{f"seconds of run {number}": seconds for number, seconds in enumerate(self.seconds, 1)})
        if self.device_peak_bytes is not None:
            _check_numbers(device_peak_bytes=self.device_peak_bytes)
        if not 1 <= len(self.seconds) <= MOST_RUNS or self.rows > self.batch_size:
            raise ValueError(f"seconds, rows: expected 1 to {MOST_RUNS} runs, and no more rows than batch_size")

    @property
    def median_seconds(self) -> float:
        """Median of the runs, loading left out."""
        return statistics.median(self.seconds)

    @property
    def seconds_with_loading(self) -> float:
        """What a person waits: imports, loading, the warm-up and a run."""
        return self.load_seconds + self.warm_up_seconds + self.median_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfitBatch:
    """A size of batches for which there was too little memory."""

    batch_size: int
    memory: Literal["GPU", "machine"]
    """Whose."""

    def __post_init__(self) -> None:
        _check_numbers(batch_size=self.batch_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficiencyRecord:
    """What efficiency.json holds."""

    format: Literal["decoding-efficiency"]
    version: Literal[1]
    bundle_sha256: str
    """What of the bundle was measured: `measured_digest`."""
    pair: str
    testset: str
    """Test set of the bundle whose recordings were translated, or `recordings`."""
    segments: int
    audio_seconds: float
    dtype: str
    machine: MeasuredMachine
    batches: tuple[BatchEfficiency, ...]
    did_not_fit: tuple[UnfitBatch, ...] = ()

    def __post_init__(self) -> None:
        _check_numbers(segments=self.segments, audio_seconds=self.audio_seconds)
        sizes = self.batch_sizes
        if not 1 <= len(sizes) <= MOST_BATCHES or len(set(sizes)) < len(sizes):
            raise ValueError(f"batches: expected 1 to {MOST_BATCHES} sizes, each once; measure the bundle again")

    @property
    def batch_sizes(self) -> list[int]:
        """Every size that was measured or did not fit, the smallest first."""
        return sorted([*(one.batch_size for one in self.batches), *(one.batch_size for one in self.did_not_fit)])

    @property
    def signature(self) -> str:
        """What the figures were measured with, in the manner of a metric's signature."""
        runs = sorted({len(batch.seconds) for batch in self.batches})
        versions = self.machine.versions
        parts: dict[str, str] = {
            "set": f"{self.pair}/{self.testset}",
            "segments": str(self.segments),
            "audio": f"{self.audio_seconds:.1f}s",
            "runs": ",".join(map(str, runs)) or "0",
            "warmup": "1",
            "threads": str(self.machine.threads),
            "device": "cpu" if self.machine.device == "cpu" else "gpu",
            "dtype": self.dtype,
            **{name: versions[name] for name in ("torch", "transformers") if name in versions},
        }
        return "|".join(f"{name}:{value}" for name, value in parts.items())

    def real_time_factor(self, batch: BatchEfficiency) -> float:
        """Return the seconds of work for a second of audio, loading left out."""
        return batch.median_seconds / self.audio_seconds

    def segment_rate(self, batch: BatchEfficiency) -> float:
        """Return the segments a second, loading left out."""
        return self.segments / batch.median_seconds


def _check_numbers(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0 < number < MOST_NUMBER:
            raise ValueError(f"{name}: {number:.6g} is not positive, or impossibly large; measure the bundle again")


def parse_efficiency(table: dict[str, Any]) -> EfficiencyRecord:
    """Return the record that a JSON object spells; UserError, naming the key, for anything else."""
    return parse(EfficiencyRecord, table, EFFICIENCY_FILE)


def write_efficiency(folder: Path, record: EfficiencyRecord) -> None:
    """Write efficiency.json into a bundle's folder."""
    write_text(folder / EFFICIENCY_FILE, canonical_json(asdict(record)))


def measured_digest(files: Mapping[str, Any]) -> str:
    """Return a digest of that of a bundle which the figures depend on: the files of its model, and its recipe.

    files: path -> entry of a manifest. The model card counts not: nothing reads it.
    """
    counted = {
        path: entry["sha256"]
        for path, entry in files.items()
        if path == "recipe.json" or (path.startswith("model/") and path != "model/README.md")
    }
    return sha256_text(canonical_json(counted))


def efficiency_lines(record: EfficiencyRecord) -> tuple[str, ...]:
    """Return the machine, the signature, and a line for each size of batches, the smallest first."""
    machine = record.machine
    on = "" if machine.device == "cpu" else f", {machine.device}"
    lines = {batch.batch_size: _batch_line(record, batch) for batch in record.batches}
    lines |= {
        unfit.batch_size: f"batch {unfit.batch_size}: does not fit into the memory of the {unfit.memory}"
        for unfit in record.did_not_fit
    }
    return (
        f"machine: {machine.processor}, {counted(machine.cores, 'core')}, {machine.memory_bytes / GIB:.1f} GiB{on}, "
        f"{machine.system}",
        f"signature: {record.signature}",
        *(lines[size] for size in sorted(lines)),
    )


def _batch_line(record: EfficiencyRecord, batch: BatchEfficiency) -> str:
    runs = len(batch.seconds)
    spread = f" ({min(batch.seconds):.2f} to {max(batch.seconds):.2f} in {runs} runs)" if runs > 1 else ""
    memory = f"{batch.peak_bytes / GIB:.2f} GiB of memory at most"
    if batch.device_peak_bytes is not None:
        memory += f", {batch.device_peak_bytes / GIB:.2f} GiB of the GPU's"
    filled = "" if batch.rows == batch.batch_size else f", of which at most {batch.rows} were filled"
    return (
        f"batch {batch.batch_size}{filled}: {batch.median_seconds:.2f} s{spread}, "
        f"{batch.seconds_with_loading:.2f} s with loading; real-time factor {record.real_time_factor(batch):.4f}; "
        f"{record.segment_rate(batch):.2f} segments/s; {batch.tokens / batch.median_seconds:.1f} tokens/s; {memory}"
    )
