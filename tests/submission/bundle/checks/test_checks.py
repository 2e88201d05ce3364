"""Good and broken bundles in pairs: every check finds its own fault alone, and nothing in a good bundle."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from submission.bundle.checks import (
    CHECKS,
    PRIMARIES,
    Finding,
    checks_table,
    exit_status,
    findings_json,
    findings_text,
    report,
    verify,
    verify_upload_set,
)
from submission.errors import UserError
from submission.model.sizes import size_text
from submission.store.digests import canonical_json
from submission.system.campaign import read_campaign
from tests.submission.bundle.checks.breaking import (
    ACL,
    CONFIG,
    WEIGHTS,
    constrained_with,
    deep_folder,
    edit,
    figure,
    line,
    list_file,
    many_folders,
    remove,
    scored,
    seal,
    speak,
    write,
)
from tests.submission.bundle.checks.broken_bundles import CASES
from tests.submission.bundle.checks.broken_claims import CLAIMS
from tests.submission.bundle.checks.broken_files import FILES
from tests.submission.bundle.checks.broken_models import MODELS

ROOT = Path(__file__).parents[4]
EVERY_CASE = (*CASES, *CLAIMS, *FILES, *MODELS)


def codes(findings: list[Finding]) -> set[str]:
    return {f.code for f in findings}


def test_a_good_bundle_gives_no_finding(good):
    """The third line of every output is blank in the fixture, which is worth a warning and no more."""
    findings = verify(good)
    assert codes(findings) == {"TXT10"} and exit_status(findings) == 0
    speak(good)
    assert verify(good) == [] and verify(good, "miniature") == []


def test_scores_of_the_outputs_in_the_bundle_give_no_finding(good):
    figure(signature="nrefs:1|tok:13a|version:2.6.0", low=20.0, high=40)(good)
    seal(good)
    assert codes(verify(good)) == {"TXT10"}
    figure(testset="ACL6060", segments=100, metric="TER", value=180.5)(good)  # scored and not uploaded
    edit("scores.json", lambda s: s["testsets"].append({"pair": "en-de", "testset": "ACL6060", "segments": 100}))(good)
    seal(good)
    assert codes(verify(good)) == {"TXT10"}


def test_the_scores_are_compared_with_the_segments_too(good):
    (good / ACL).write_text("Guten Tag.\nDas ist ein Test.\n", encoding="utf-8")
    scored(segments=2, flags={"blank": 0})(good)
    seal(good)
    assert {"SCO02", "TXT01"} <= codes(verify(good))


@pytest.mark.parametrize("broken", EVERY_CASE, ids=lambda c: f"{c.code}: {c.what}")
def test_a_broken_bundle_is_refused_with_its_own_code(good, broken):
    speak(good)
    broken.breaks(good)
    if broken.sealed:
        seal(good)
    findings = verify(good, "miniature")
    assert codes(findings) - broken.also == {broken.code}
    severities = {c.code: c.severity for c in CHECKS}
    assert exit_status(findings) == any(severities[code] == "error" for code in (broken.code, *broken.also))
    printed = findings_text(findings) + findings_json(findings)
    assert all(c.isprintable() or c == "\n" for c in printed)


def campaign_file(folder: Path, limit: str | None) -> str:
    """Write the miniature's campaign with another limit, or with none, and return the file's path."""
    text = (ROOT / "submission" / "campaigns" / "miniature.toml").read_text(encoding="utf-8")
    stated = f'size_limit = "{limit}"' if limit else ""
    lines = [stated if row.startswith("size_limit") else row for row in text.splitlines()]
    (folder / "tight.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder / "tight.toml")


def test_without_a_limit_no_size_is_refused_and_the_report_says_so(good, tmp_path):
    campaign = campaign_file(tmp_path, None)
    write("campaign.json", canonical_json(asdict(read_campaign(campaign))))(good)
    seal(good)
    assert exit_status(verify(good, campaign)) == 0
    text = report(good, campaign, verify(good, campaign))
    size = sum(p.stat().st_size for p in (good / "model").iterdir())
    assert "campaign miniature, no size limit\n" in text
    assert f"{size:,} bytes = {size / 1e9:.6f} GB = {size / 2**30:.6f} GiB\n" in text


def test_a_model_over_the_limit_is_refused_with_all_units(good, tmp_path):
    campaign = campaign_file(tmp_path, "20 kB")
    write("campaign.json", canonical_json(asdict(read_campaign(campaign))))(good)
    seal(good)
    (found,) = [f for f in verify(good, campaign) if f.severity == "error"]
    size = sum(p.stat().st_size for p in (good / "model").iterdir())
    assert found.code == "SIZE01"
    assert f"{size:,} bytes = {size / 1e9:.6f} GB = {size / 2**30:.6f} GiB is over the limit of 20 kB" in found.what
    assert f"by {size - 20_000:,} bytes" in found.what


def test_a_model_within_the_limit_in_gib_and_over_it_in_gb_is_worth_a_warning(good, tmp_path):
    size = sum(p.stat().st_size for p in (good / "model").iterdir())
    limit = (size + 50_000) / 2**30  # read as GB it is 7 % less
    campaign = campaign_file(tmp_path, f"{limit:.7f} GiB")
    write("campaign.json", canonical_json(asdict(read_campaign(campaign))))(good)
    seal(good)
    assert codes(verify(good, campaign)) == {"SIZE02", "TXT10"}


def test_every_check_has_a_broken_bundle():
    assert {c.code for c in EVERY_CASE} | {"SIZE01", "SIZE02"} == {c.code for c in CHECKS}
    assert len(EVERY_CASE) >= 300


def test_every_check_has_a_code_of_its_own_and_a_fix():
    listed = [c.code for c in CHECKS]
    assert listed == sorted(set(listed))
    assert all(c.fix and c.fix[0].isupper() and c.fix.endswith(".") for c in CHECKS)


def test_all_findings_come_in_one_run_errors_first(good):
    line(" Ein\x00Satz. (Applause)")(good)
    remove("segments/YOUTUBE.yaml")(good)
    findings = verify(good)
    assert {"MAN02", "MAN04", "SET03", "TXT06", "TXT08", "TXT12"} <= codes(findings)
    severities = [f.severity for f in findings]
    assert severities == sorted(severities)
    assert json.loads(findings_json(findings)) == [asdict(f) for f in findings]
    assert "How to fix it:" in findings_text(findings)


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        (("primary", "contrastive"), []),
        (("primary", "primary"), ["2 of 2 bundles are primary, expected exactly one: "]),
        (("contrastive", "contrastive"), ["0 of 2 bundles are primary, expected exactly one"]),
    ],
)
def test_of_several_bundles_exactly_one_is_primary(good, tmp_path, kinds, said):
    folders = [Path(shutil.copytree(good, tmp_path / str(n))) for n in range(2)]
    for folder, kind in zip(folders, kinds, strict=True):
        edit("recipe.json", lambda r, kind=kind: r["upload"].update(kind=kind))(folder)
    findings = verify_upload_set(folders)
    assert [f.what.partition("unconstrained: ")[2][: len(s)] for f, s in zip(findings, said, strict=True)] == said
    assert {f.code for f in findings} <= {PRIMARIES.code}


@pytest.mark.parametrize(("teams", "said"), [(("KIT", "Kit"), {"PRI02"}), (("KIT", "KIT"), set()), (("A", "B"), set())])
def test_teams_of_an_upload_that_differ_in_case_only_are_refused(good, tmp_path, teams, said):
    folders = [Path(shutil.copytree(good, tmp_path / str(n))) for n in range(2)]
    for folder, team, kind in zip(folders, teams, ("primary", "contrastive"), strict=True):
        kind = "primary" if set(teams) == {"A", "B"} else kind
        edit("recipe.json", lambda r, team=team, kind=kind: r["upload"].update(team=team, kind=kind))(folder)
    assert codes(verify_upload_set(folders)) == said


def test_a_constrained_system_that_read_acl_6060_is_constrained(good):
    constrained_with("acl_6060/dev")(good)
    assert "DATA01" not in codes(verify(good))


def test_each_condition_has_a_primary_of_its_own(good, tmp_path):
    other = Path(shutil.copytree(good, tmp_path / "other"))
    edit("recipe.json", lambda r: r["upload"].update(condition="constrained"))(other)
    assert verify_upload_set([good, other]) == []


def test_the_command_checks_several_bundles_as_one_upload(good, tmp_path):
    other = shutil.copytree(good, tmp_path / "other")
    status, said = command(good, other)
    assert status == 1 and "2 bundles as one upload" in said and "error   PRI01" in said
    status, said = command("--json", good, other)
    assert status == 1 and json.loads(said).keys() == {str(good), str(other), ""}


def test_of_very_many_findings_the_first_are_shown_and_the_rest_are_counted(good):
    edit("manifest.json", lambda m: [list_file(m, f"model/{n}.json") for n in range(5_000)])(good)
    found = [f for f in verify(good) if f.code == "MAN02"]
    assert len(found) == 101 and found[0].what == "4,900 more findings of this check are not shown"


def test_the_competition_is_held_against_the_shapes_of_its_own_base_model(good):
    """The miniature is smaller in every respect: were it named Qwen2-Audio-7B, the check would say so."""
    smaller = {f.what.partition(":")[0] for f in verify(good, "iwslt26") if f.code == "CFG05"}
    assert {"text_config.hidden_size", "text_config.num_hidden_layers", "audio_config.d_model"} <= smaller
    edit(CONFIG, lambda c: c["text_config"].update(hidden_size=8192, num_attention_heads=64))(good)
    larger = {f.what for f in verify(good, "iwslt26") if f.code == "CFG04"}
    assert "text_config.hidden_size: the base model Qwen2-Audio-7B has 4,096, this model 8,192" in larger


def test_a_bundle_is_checked_against_the_campaign_of_the_checker(good):
    findings = verify(good, "iwslt26")
    assert {"CAM01", "NAME01"} <= codes(findings)


@pytest.mark.parametrize(
    "name", ['"../../evil"', '"/evil.toml"', "3", "null", "[]"], ids=["upwards", "path", "number", "null", "list"]
)
def test_a_bundle_cannot_choose_the_campaign_that_it_is_checked_against(good, name):
    write("campaign.json", f'{{"name": {name}}}')(good)
    with pytest.raises(UserError, match="--campaign"):
        verify(good)


def test_what_cannot_be_checked_is_reported_and_does_not_pass(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        verify(tmp_path / "nothing")
    with pytest.raises(UserError, match="name the campaign to check against with --campaign"):
        verify(tmp_path)
    assert "MAN01" in codes(verify(tmp_path, "miniature"))


def test_a_file_is_to_be_unpacked(tmp_path):
    (tmp_path / "bundle.tar").touch()
    with pytest.raises(UserError, match="is a file.*unpack it and name the folder"):
        verify(tmp_path / "bundle.tar")


def test_of_a_folder_that_holds_bundles_the_bundles_are_named(good):
    (good.parent / ".bundle.partial").mkdir()
    with pytest.raises(UserError, match="is not a bundle, but holds some: bundle; name one of them"):
        verify(good.parent, "miniature")


def test_a_bundle_without_its_manifest_gives_one_finding_for_it(good):
    remove("manifest.json")(good)
    assert codes(verify(good)) == {"MAN01", "TXT10"}


def test_the_report_says_what_was_checked_against_what(good):
    size = sum(p.stat().st_size for p in (good / "model").iterdir())
    limit = read_campaign("miniature").size_limit_bytes
    text = report(good, None, verify(good))
    assert str(good) in text and f"campaign miniature, limit {read_campaign('miniature').size_limit}" in text
    assert f"{size_text(size)}, {limit - size:,} bytes under the limit" in text
    assert "11 of 11, 33 lines in all" in text
    assert f"{sum(p.is_file() for p in good.rglob('*'))}, " in text
    assert text.endswith("verify: 11 warnings\n")
    remove(ACL)(good)
    write(WEIGHTS, bytes(limit + 1))(good)
    text = report(good, "miniature", verify(good, "miniature"))
    assert "bytes OVER the limit" in text and "10 of 11, 30 lines in all" in text


def test_the_report_says_by_what_each_target_language_is_recognised(good, tmp_path):
    assert "\nlanguages:       de by script and trigrams; zh by script\n" in report(good, None, [])
    text = Path(campaign_file(tmp_path, None)).read_text(encoding="utf-8")
    other = text.replace('target = "de"', 'target = "fr"').replace('target = "zh"', 'target = "sw"')
    (tmp_path / "other.toml").write_text(other, encoding="utf-8")
    said = "fr by script; sw by nothing: neither script nor trigrams are known here"
    assert f"\nlanguages:       {said}\n" in report(good, str(tmp_path / "other.toml"), [])


@pytest.mark.parametrize("breaks", [shutil.rmtree, many_folders, deep_folder, remove("campaign.json")])
def test_the_head_of_the_report_is_written_whatever_lies_in_the_folder(good, breaks):
    breaks(good)
    assert report(good, None, []).endswith("verify: no findings\n")
    lines = report(good, "miniature", []).splitlines()
    assert lines[1].startswith("checked against: campaign miniature, limit ")
    assert len(lines) == 11


@pytest.mark.parametrize(
    ("breaks", "status", "said"),
    [
        (None, 0, "verify: 11 warnings"),
        (line("Ein\x00Satz."), 1, "error   TXT06   en-de/ACL.txt: line 2: U+0000"),
        (remove("campaign.json"), 2, "name the campaign to check against with --campaign"),
    ],
    ids=["good", "broken", "cannot be checked"],
)
def test_the_command_says_by_its_status_what_it_found(good, breaks, status, said):
    if breaks:
        breaks(good)
    command = [sys.executable, "-m", "submission", "verify", str(good)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == status
    assert said in done.stdout + done.stderr and "Traceback" not in done.stderr


def command(*arguments: str | Path) -> tuple[int, str]:
    """Run `verify` and return its status and all that it printed."""
    line = [sys.executable, "-m", "submission", "verify", *map(str, arguments)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_command_checks_a_named_bundle_against_the_named_campaign(good):
    status, said = command(good, "--campaign", "iwslt26")
    assert status == 1 and "checked against: campaign iwslt26, limit 4 GiB" in said and "CAM01" in said


def test_the_table_of_checks_in_the_submission_guide_is_current():
    text = (ROOT / "SUBMISSION.md").read_text(encoding="utf-8")
    table = text.split("<!-- checks -->\n")[1].split("<!-- /checks -->")[0]
    assert table.strip() == checks_table().strip(), "write it with submission.bundle.checks.checks_table()"
