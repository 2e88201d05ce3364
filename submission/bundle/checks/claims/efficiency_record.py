"""EFF: whether what was measured of speed and memory can be read, and was measured on this bundle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from submission.bundle.checks.finding import Fault
from submission.bundle.checks.outputs.texts import segment_count
from submission.bundle.efficiency import ALL_RECORDINGS, EFFICIENCY_FILE, measured_digest
from submission.bundle.manifest import is_file_entry
from submission.bundle.untrusted.bundle_view import BundleView
from submission.bundle.untrusted.strict_json import Unreadable
from submission.text.characters import printable


def unreadable_efficiency(view: BundleView) -> Iterator[Fault]:
    """Measure again with `python -m evaluate efficiency`, or remove the file and write the bundle again."""
    if isinstance(view.efficiency, Unreadable):
        yield EFFICIENCY_FILE, str(view.efficiency)


def foreign_efficiency(view: BundleView) -> Iterator[Fault]:
    """Measure again with `python -m evaluate efficiency`: the figures are of another model, recipe or test set."""
    record = view.efficiency
    if record is None or isinstance(record, Unreadable):
        return
    if not all(is_file_entry(entry) for entry in view.manifest_files.values()):
        return  # reported as MAN01
    if record.bundle_sha256 != measured_digest(view.manifest_files):
        yield EFFICIENCY_FILE, "bundle_sha256: was measured on another model, or by another recipe"
    pairs = {pair.name: pair.testsets for pair in view.campaign.pairs}
    if record.pair not in pairs or record.testset not in (*pairs[record.pair], ALL_RECORDINGS):
        what = printable(f"{record.pair}/{record.testset}")
        yield EFFICIENCY_FILE, f"pair, testset: the campaign has no {what}"
    with suppress(Unreadable):  # reported as SET03
        if record.testset in view.outputs.values() and record.segments > (most := segment_count(view, record.testset)):
            yield EFFICIENCY_FILE, f"segments: {record.segments:,}, and {record.testset} has {most:,}"
    if not isinstance(view.recipe, Unreadable) and record.dtype != view.recipe.decode.dtype:
        yield EFFICIENCY_FILE, f"dtype: expected {view.recipe.decode.dtype}, got {printable(record.dtype)}"
