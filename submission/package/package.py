"""Write the package of a bundle: the bundle unchanged, and beside it what translates with it."""

from __future__ import annotations

import shutil
from pathlib import Path

from submission.bundle.archive import refuse_full_disk
from submission.bundle.checks import exit_status, verify
from submission.errors import UserError
from submission.package.contents import BUNDLE, SCRIPTS, package_files
from submission.progress import progress
from submission.store.digests import files_below, write_bytes


def package(bundle: Path, out: Path, campaign: str | None = None) -> int:
    """Write the package of a bundle into the new folder `out`, and return its bytes.

    Equal bundles of one name give equal files and modes. The package is made under another name and renamed when it is
    whole. Raises UserError where the bundle has errors, `out` is there already or lies in the bundle, or the disk is
    too full.
    """
    bundle, out = bundle.resolve(), out.absolute()
    if out.exists() or out.resolve().is_relative_to(bundle):
        raise UserError(str(out), "is there already, or lies in the bundle", "name a new folder with --out")
    if exit_status(verify(bundle, campaign)):
        fix = f"run `python -m submission verify {bundle}` and fix what it reports"
        raise UserError(f"bundle {bundle}", "has errors and is not packaged", fix)
    out.parent.mkdir(parents=True, exist_ok=True)
    sizes = {path: path.stat().st_size for path in files_below(bundle)}
    refuse_full_disk(out.parent, sum(sizes.values()), "package")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed run
    try:
        with progress("package", sum(sizes.values()), "bytes") as tick:
            for path, size in sizes.items():
                _copy(path, partial / BUNDLE / path.relative_to(bundle))
                tick(size)
        for name, content in package_files(bundle.name).items():
            _write(partial / name, content)
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return sum(path.stat().st_size for path in files_below(out))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)  # the bytes alone: modes and times of the store do not matter
    target.chmod(0o644)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)
    path.chmod(0o755 if path.name in SCRIPTS else 0o644)
