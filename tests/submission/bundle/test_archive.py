"""The archive for upload: the same bytes wherever it is made, whole or not there."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from submission.bundle.archive import archive
from submission.bundle.checks import verify
from submission.errors import UserError
from submission.store.digests import sha256_file, tree_digest


def test_equal_bundles_give_equal_archives_wherever_they_lie(pristine, tmp_path):
    copy = shutil.copytree(pristine, tmp_path / "elsewhere" / pristine.name)
    copy.chmod(0o700)
    one, two = tmp_path / "one.tar", tmp_path / "two.tar"
    assert archive(pristine, one) == archive(copy, two) == sha256_file(one) == sha256_file(two)


def test_unpacked_archive_is_the_bundle_and_its_checksum_holds(pristine, tmp_path):
    out = tmp_path / "upload.tar"
    archive(pristine, out)
    subprocess.run(["sha256sum", "-c", "upload.tar.sha256"], cwd=tmp_path, check=True, capture_output=True)
    subprocess.run(["tar", "-xf", str(out)], cwd=tmp_path, check=True)
    assert tree_digest(tmp_path / pristine.name) == tree_digest(pristine)
    assert not [f for f in verify(tmp_path / pristine.name) if f.severity == "error"]


def test_bundle_with_errors_is_refused_and_the_good_archive_stays(good, tmp_path):
    out = tmp_path / "upload.tar"
    before = archive(good, out)
    (good / "en-de" / "ACL.txt").write_text("short\n", encoding="utf-8")
    with pytest.raises(UserError, match="has errors"):
        archive(good, out)
    assert sha256_file(out) == before


def test_archive_never_goes_into_the_bundle(good):
    with pytest.raises(UserError, match="lies in the bundle"):
        archive(good, good / "upload.tar")


def test_what_a_killed_run_left_is_removed(good, tmp_path):
    (tmp_path / ".upload.tar.x1.aside").write_bytes(b"half")
    archive(good, tmp_path / "upload.tar")
    assert not list(tmp_path.glob(".*"))
