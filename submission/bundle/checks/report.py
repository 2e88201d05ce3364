"""The text that `verify` prints: the bundle, campaign and limit that were compared, then the findings.

"no findings" alone would not show that the right folder was compared with the right limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from submission.bundle.checks.finding import Finding, findings_text
from submission.bundle.checks.outputs.texts import read_output
from submission.bundle.manifest import SEGMENTER
from submission.bundle.untrusted.bundle_view import BundleView
from submission.bundle.untrusted.location import chosen_campaign
from submission.bundle.untrusted.strict_json import Unreadable
from submission.counting import counted
from submission.errors import UserError
from submission.model.sizes import size_text
from submission.text.characters import printable
from submission.text.language_profiles import SAMPLES
from submission.text.scripts import scripts_of

UNKNOWN = "unknown"
LABELS = ("checked against", "model folder", "parameters", "tokenizer", "segmenter", "outputs", "languages", "files")


def report(folder: Path, campaign: str | None, findings: Sequence[Finding], base: Path | None = None) -> str:
    """Return the findings of `verify(folder, campaign, base)` as text, below a head that names what was checked.

    The head is written for any folder; what cannot be read is `unknown`.
    """
    rows = {"bundle": printable(str(folder), 4_096), **head(folder, campaign, base)}
    lines = [f"{label + ':':<16} {value}" for label, value in rows.items()]
    return "\n".join([*lines, "", findings_text(list(findings))])


def upload_set_report(folders: Sequence[Path], findings: Sequence[Finding]) -> str:
    """Return the findings of `verify_upload_set(folders)` as text, below a line that names what was compared."""
    return f"together:        {len(folders)} bundles as one upload\n\n{findings_text(list(findings))}"


def head(folder: Path, campaign: str | None, base: Path | None = None) -> dict[str, str]:
    """Return label -> value: the campaign and its limit, the model's size, outputs and files."""
    try:
        view = BundleView(folder, chosen_campaign(folder, campaign), base)
    except UserError:  # which `verify` raises
        return dict.fromkeys(LABELS, UNKNOWN)
    limit, stated = view.campaign.size_limit_bytes, "no size limit"
    if limit is not None:
        stated = f"limit {view.campaign.size_limit} = {size_text(limit)}"
    known = not view.overfull and not view.unlisted
    return {
        "checked against": f"campaign {view.campaign.name}, {stated}",
        "model folder": _size(view.model_bytes, limit) if known and view.under("model") else UNKNOWN,
        "parameters": _parameters(view),
        "tokenizer": _tokenizer(view),
        "segmenter": _segmenter(view) if known else UNKNOWN,
        "outputs": _outputs(view),
        "languages": _languages(view),
        "files": f"{len(view.files):,}, {size_text(sum(e.size_bytes for e in view.files.values()))}"
        if known
        else UNKNOWN,
    }


def _size(size: int, limit: int | None) -> str:
    if limit is None:
        return size_text(size)
    spare = limit - size
    return f"{size_text(size)}, {abs(spare):,} bytes {'under' if spare >= 0 else 'OVER'} the limit"


def _parameters(view: BundleView) -> str:
    """Return the number of parameters of the model and of the base model, where they are known."""
    got, base = view.parameters, view.base_parameters
    name = view.campaign.model.name
    of = f"the base model {name} has {base:,}" if base else f"the shapes of {name} do not ship: not compared"
    left_out = f", without the tensors of {', '.join(view.left_out_roles)}" if view.left_out_roles else ""
    return f"{got:,}{left_out}; {of}" if got else UNKNOWN


def _tokenizer(view: BundleView) -> str:
    """Return what tokenizer, processor and generation configuration were compared with."""
    name = view.campaign.model.name
    if view.base is not None:
        return f"compared with the base model {name}, with processor and generation configuration"
    return f"by the rules of {view.family.name} alone: name the folder of {name} with --base to compare it"


def _segmenter(view: BundleView) -> str:
    held = view.under(SEGMENTER)
    return f"{size_text(sum(e.size_bytes for e in held))}, not part of the model" if held else "none"


def _outputs(view: BundleView) -> str:
    counts = list(_line_counts(view))
    return f"{len(counts):,} of {len(view.outputs):,}, {counted(sum(counts), 'line')} in all"


def _languages(view: BundleView) -> str:
    """Return by what each target language was recognised; a campaign may name one that nothing here knows."""
    known: dict[str, list[str]] = {}
    for target in sorted({pair.target for pair in view.campaign.pairs}):
        ways = [way for way, ok in (("script", scripts_of(target)), ("trigrams", target in SAMPLES)) if ok]
        known.setdefault(" and ".join(ways), []).append(target)
    rows = [f"{', '.join(targets)} by {ways}" for ways, targets in known.items() if ways]
    if unknown := known.get(""):
        rows.append(f"{', '.join(unknown)} by nothing: neither script nor trigrams are known here")
    return "; ".join(rows)


def _line_counts(view: BundleView) -> Iterator[int]:
    """Yield the number of lines of every output that the campaign requires and that can be read."""
    for path in view.outputs:
        try:
            data = read_output(view, path)
        except Unreadable:
            continue
        yield data.count(b"\n") + (bool(data) and not data.endswith(b"\n"))
