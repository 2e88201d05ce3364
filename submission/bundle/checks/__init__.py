"""`verify`: checks that a bundle is complete, well-formed and consistent.

A bundle is untrusted input. It is compared with the checker's own copy of the campaign; nothing in it is run,
followed or believed. Every check is one function: it yields (path, what is wrong), and its docstring is the
fix that the user reads. Nothing here needs more than the standard library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from submission.bundle.checks import upload_set
from submission.bundle.checks.claims import card, descriptions, efficiency_record, scores
from submission.bundle.checks.finding import (
    Check,
    Checked,
    Fault,
    Finding,
    exit_status,
    findings_json,
    findings_text,
    sorted_findings,
    verdict,
)
from submission.bundle.checks.folder import files, inventory
from submission.bundle.checks.model import derivation, finite_weights, model_files, segmenter, weights
from submission.bundle.checks.outputs import target_languages, texts
from submission.bundle.checks.report import report
from submission.bundle.untrusted.bundle_view import BundleView
from submission.bundle.untrusted.location import chosen_campaign, require_bundle_folder

__all__ = [
    "CHECKS",
    "PRIMARIES",
    "TEAMS",
    "Check",
    "Finding",
    "checks_table",
    "exit_status",
    "findings_json",
    "findings_text",
    "report",
    "verdict",
    "verify",
    "verify_upload_set",
]


def _error(code: str, subject: str, find: Callable[[Checked], Iterable[Fault]]) -> Check[Checked]:
    return Check(code=code, severity="error", subject=subject, find=find)


def _warning(code: str, subject: str, find: Callable[[Checked], Iterable[Fault]]) -> Check[Checked]:
    return Check(code=code, severity="warning", subject=subject, find=find)


CHECKS = (
    _error("CAM01", "`campaign.json` missing, or not the campaign that is checked against", inventory.other_campaign),
    _error("CARD01", "model card other than what is derived, byte for byte", card.other_card),
    _warning("CARD02", "model card missing", card.missing_card),
    _error("CFG01", "`model/config.json` missing, unreadable, or not a packed base model's", weights.configuration),
    _error("CFG02", "configuration that fetches weights or code from outside", weights.outside_reference),
    _error("CFG03", "other JSON of the model unreadable", weights.unreadable_json),
    _error("CFG04", "model larger than the campaign's base model in some dimension", derivation.larger_than_base),
    _warning("CFG05", "model smaller than the campaign's base model in some dimension", derivation.smaller_than_base),
    _error("CFG06", "chat template that accesses code or other files", weights.reaching_template),
    _error("CFG07", "configuration with a key or value that the base model does not have", model_files.unknown_setting),
    _error("CFG08", "codec that the recipe does not give to the weight", derivation.codecs_of_no_recipe),
    _error("DATA01", "constrained condition with data sets other than ACL 60/60", descriptions.constrained_data),
    _error("DES01", "description of a pair missing or unreadable", descriptions.missing_description),
    _error("DES02", "mandatory field missing in a description", descriptions.missing_field),
    _error("DES03", "description that contradicts the artifacts", descriptions.wrong_field),
    _error("DES04", "description other than what is derived, byte for byte", descriptions.other_description),
    _error("EFF01", "`efficiency.json` not valid", efficiency_record.unreadable_efficiency),
    _error("EFF02", "`efficiency.json` of another bundle", efficiency_record.foreign_efficiency),
    _error("FILE01", "symbolic link", files.link),
    _error("FILE02", "device, pipe or socket", files.special_file),
    _error("FILE03", "executable code, pickle or archive, by its name", files.code_by_name),
    _error("FILE04", "executable code, pickle or archive, by its first bytes", files.code_by_content),
    _error("FILE05", "file name that other systems cannot store", files.unsafe_name),
    _error("FILE06", "file names that differ in case or Unicode form only", files.colliding_names),
    _error("FILE07", "file or folder that cannot be read", files.unreadable),
    _error("FILE08", "file that does not belong in a bundle", files.misplaced),
    _error("FILE09", "far more files than a bundle has", files.overfull),
    _error("FILE10", "hard link", files.hard_link),
    _error("FILE11", "sparse file: more holes than bytes", files.sparse_file),
    _error("FILE12", "file that runs as another user, by its mode", files.changed_identity),
    _error("FILE13", "licence or notice that is no plain text", files.other_than_text),
    _error("LANG01", "output in another script than its target language's", target_languages.other_script),
    _warning("LANG02", "lines in another script than the target language's", target_languages.lines_in_other_script),
    _error("LANG03", "outputs of two pairs swapped, by their scripts", target_languages.swapped_pairs),
    _error("LANG04", "outputs of two pairs or two test sets that are equal", target_languages.equal_outputs),
    _warning("LANG05", "output that reads like another language than its target", target_languages.other_language),
    _error("MAN01", "`manifest.json` missing, unreadable or incomplete", inventory.manifest),
    _error("MAN02", "file missing", inventory.missing_file),
    _error("MAN03", "file that the manifest does not list", inventory.unlisted_file),
    _error("MAN04", "file size other than in the manifest", inventory.wrong_size),
    _error("MAN05", "file digest other than in the manifest", inventory.wrong_digest),
    _error("MAN06", "path in the manifest that leaves the folder", inventory.leaving_path),
    _error("MAN07", "manifest that contradicts the artifacts", inventory.wrong_facts),
    _error("MAN08", "file far larger than a bundle has, not read", inventory.unread_file),
    _error("NAME01", "model name not by the campaign's rule", descriptions.wrong_model_name),
    _error("REC01", "`recipe.json` missing or not valid", inventory.invalid_recipe),
    _error("SCO01", "`scores.json` missing, not what scoring writes, or at odds with itself", scores.invalid_scores),
    _error("SCO02", "scores with other numbers of segments or blank lines than the outputs", scores.other_counts),
    _error("SCO03", "output that the scores leave out, or figure that they list twice", scores.uncovered_output),
    _error("SCO04", "score that is not a number, or outside the range of its metric", scores.impossible_figure),
    _error("SEG01", "segmentation classifier missing, or present although not needed", segmenter.missing_segmenter),
    _error("SEG02", "configuration of the segmentation classifier unreadable", segmenter.bad_configuration),
    _error("SEG03", "weights of the segmentation classifier unreadable", segmenter.bad_weights),
    _error("SET01", "output of a pair and test set missing", texts.missing_output),
    _error("SET02", "output, segments or description that the campaign does not have", texts.extra_output),
    _error("SET03", "segments of a test set missing or unreadable", texts.bad_segments),
    _error("SET04", "segment longer than the model's window", texts.overlong_segment),
    _warning("SET05", "segments of a recording that overlap", texts.overlapping_segments),
    _error("SIZE01", "model folder over the size limit", inventory.over_the_limit),
    _warning("SIZE02", "model folder within the limit in GiB and over it in GB", inventory.over_the_decimal_reading),
    _error("TOK01", "file missing that running the model needs", model_files.missing_companion),
    _error("TOK02", "tokenizer, processor or generation beyond what the family has", model_files.foreign_companion),
    _error("TOK03", "tokenizer, processor or generation other than the base model's", model_files.other_than_base),
    _error("TXT01", "number of lines other than the number of segments", texts.wrong_line_count),
    _error("TXT02", "output that is not UTF-8", texts.not_utf8),
    _error("TXT03", "byte order mark", texts.byte_order_mark),
    _error("TXT04", "carriage return (CRLF line ends)", texts.carriage_return),
    _error("TXT05", "U+2028 or another line break within a line", texts.other_line_break),
    _error("TXT06", "NUL or another control character", texts.control_character),
    _error("TXT07", "direction mark or another character that hides or reorders text", texts.direction_mark),
    _error("TXT08", "blank at the beginning or the end of a line", texts.outer_blank),
    _error("TXT09", "last line without a line feed", texts.no_final_line_feed),
    _warning("TXT10", "blank lines", texts.blank_line),
    _warning("TXT11", "repetition loops", texts.repetition),
    _warning("TXT12", "tags such as (Applause), or the model's own tokens", texts.tag),
    _error("TXT13", "output that cannot be read, or is far too large", texts.unreadable_output),
    _error("TXT14", "output in which every line is blank", texts.blank_output),
    _warning("TXT15", "U+FFFD in place of a lost character", texts.lost_character),
    _error("WEI01", "safetensors header unreadable", weights.bad_header),
    _error("WEI02", "tensor name given twice", weights.repeated_tensor),
    _error("WEI03", "tensors that overlap, leave gaps, or lie beyond the file", weights.bad_layout),
    _error("WEI04", "index missing, or naming the wrong files", weights.bad_index),
    _error("WEI05", "no weights in the bundle", weights.no_weights),
    _error("WEI06", "tensors other than the configuration implies", weights.wrong_tensors),
    _error("WEI07", "packed weight that cannot be decoded", weights.undecodable_weight),
    _error("WEI08", "weights that are not finite numbers", finite_weights.not_finite),
)
"""Every check of one bundle, sorted by its code."""

PRIMARIES = _error("PRI01", "no primary, or more than one, of a team and condition", upload_set.other_than_one_primary)
TEAMS = _error("PRI02", "teams of several bundles that differ in case only", upload_set.spelled_otherwise)
"""The checks of several bundles; they read a list of views."""


def verify(folder: Path, campaign: str | None = None, base: Path | None = None) -> list[Finding]:
    """Return the findings of a bundle, errors first; an empty list for a good one.

    campaign: name or TOML file of the campaign to check against; None takes the shipped one that the bundle
    names. The bundle's own copy of the campaign is compared with it, never used. base: folder of the campaign's base
    model, to compare configuration, tokenizer and processor with. Raises UserError where there is
    no folder to check or no campaign to check it against.
    """
    require_bundle_folder(folder)
    view = BundleView(folder, chosen_campaign(folder, campaign), base)
    # Where a folder was not listed to its end, no other check would be right.
    checks = [check for check in CHECKS if check.find is files.overfull] if view.overfull else CHECKS
    return sorted_findings(finding for check in checks for finding in check.findings(view))


def verify_upload_set(folders: Sequence[Path], campaign: str | None = None) -> list[Finding]:
    """Return the findings of several bundles as one upload, beside what `verify` finds in each of them.

    campaign: as for `verify`.
    """
    views = [BundleView(folder, chosen_campaign(folder, campaign)) for folder in folders]
    return sorted_findings(finding for check in (PRIMARIES, TEAMS) for finding in check.to_findings(check.find(views)))


def checks_table() -> str:
    """Return the checks as a Markdown table, for SUBMISSION.md between the marks `checks`."""
    every: list[Check[Any]] = [*CHECKS, PRIMARIES, TEAMS]
    rows = [f"| {c.code} | {c.severity} | {c.subject} | {c.fix} |" for c in sorted(every, key=lambda c: c.code)]
    return "\n".join(["| code | severity | what is found | how to fix it |", "|---|---|---|---|", *rows]) + "\n"
