"""`verify` beside `sha256sum`, at the size of the competition.

    python tests/submission/bundle/checks/bench_verify.py --out DIR

DIR gets a bundle of the competition's contrastive system with random bytes for weights, 4.3 GB of them, made once
and kept (building it takes twice that space). Each turn reads every file of it by `sha256sum`, by OpenSSL and by
`verify`, from the page cache, where hashing is all that counts, or with --cold from the disk. Printed are the best
seconds of each, by the clock and of the processor, the ratios, how far `verify` stays below 1.3 x `sha256sum` and
5 seconds, and its peak of memory, which is to stay under 200 MB.
Needs a Unix and no package but what the tests need.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[4]
CAMPAIGN, RECIPE = "iwslt26", "contrastive"
BLOCK_BYTES = 64 << 20
FINITE = bytes(byte & 0x3F for byte in range(256))
"""What random bytes become, so that those of floating-point tensors are finite numbers."""
MOST_RATIO = 1.3
MOST_SECONDS = 5.0
MOST_PEAK_BYTES = 200_000_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the bundle is made and kept")
    parser.add_argument("--turns", type=int, default=3, metavar="N", help="turns of each (default: %(default)s)")
    parser.add_argument("--cold", action="store_true", help="drop the files from the page cache before each")
    parser.add_argument(
        "--python", default=sys.executable, metavar="P", help="Python that verifies (default: this one)"
    )
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    folder = args.out / f"{CAMPAIGN}-{RECIPE}"
    if not folder.is_dir():
        make(folder)
    files = sorted(str(p) for p in folder.rglob("*") if p.is_file())
    size = sum(os.path.getsize(path) for path in files)
    commands = {
        "sha256sum": ["sha256sum", *files],
        "openssl": ["openssl", "dgst", "-sha256", *files],
        "verify": [args.python, "-m", "submission", "verify", str(folder), "--campaign", CAMPAIGN],
    }
    turns: dict[str, list[Turn]] = {}
    for _ in range(args.turns):
        for name, command in commands.items():
            if shutil.which(command[0]):
                turns.setdefault(name, []).append(measure(command, files if args.cold else []))
    for name, some in turns.items():
        wall, processor = min(t.seconds for t in some), min(t.processor_seconds for t in some)
        print(f"{name:<10} {wall:7.2f} s, {processor:7.2f} s of the processor, {size:,} bytes")
    pairs = list(zip(turns["verify"], turns["sha256sum"], strict=True))
    peak = max(t.peak_bytes for t in turns["verify"])
    spare = min(MOST_RATIO * s.processor_seconds + MOST_SECONDS - v.processor_seconds for v, s in pairs)
    print("verify / sha256sum, turn by turn:")
    for v, s in pairs:
        wall, processor = v.seconds / s.seconds, v.processor_seconds / s.processor_seconds
        print(f"  {wall:.2f} by the clock, {processor:.2f} of the processor")
    print(f"{spare:.1f} s of the processor below {MOST_RATIO} x sha256sum + {MOST_SECONDS} s in the worst turn")
    print(f"peak {peak:,} bytes (bar {MOST_PEAK_BYTES:,})")
    return int(spare < 0 or peak > MOST_PEAK_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one run of a command took."""

    seconds: float
    processor_seconds: float
    """User and system, which other processes on the machine change little."""
    peak_bytes: int


def measure(command: list[str], cold: list[str]) -> Turn:
    """Return what a command takes; `cold`: files to drop from the cache.

    Status 1 is right: the bundle has the miniature's tokenizer, which `verify` finds (TOK02) beside reading all.
    """
    for path in cold:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    said = process.stdout.read().decode("utf-8") if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if os.waitstatus_to_exitcode(status) not in (0, 1):
        raise SystemExit(f"{command[0]} failed:\n{said}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Turn(seconds=seconds, processor_seconds=usage.ru_utime + usage.ru_stime, peak_bytes=peak)


def make(folder: Path) -> None:
    """Write a bundle of the competition's shapes and size, whose weights are random bytes."""
    from conftest import write_ingredients

    from submission.model.checkpoint import config_text, packed_config
    from submission.model.families import shipped_config, stored_dtype, tensors
    from submission.model.forecast import forecast, stored_parts
    from submission.model.safetensors_header import file_bytes, header_bytes
    from submission.system.campaign import read_campaign
    from submission.system.recipe.recipe_files import read_recipe

    campaign, recipe = read_campaign(CAMPAIGN), read_recipe(RECIPE, CAMPAIGN)
    config, options = shipped_config(campaign.model.name), recipe.quantize
    assert config is not None
    limit = campaign.size_limit_bytes
    codecs = forecast(config, options.codecs, options.overrides, limit_bytes=limit, other_bytes=10_000_000).codecs
    stored = {
        name: part
        for spec in tensors(config)
        for name, part in stored_parts(spec, codecs.get(spec.name), stored_dtype(config)).items()
    }
    parts = folder.parent / "parts"
    shutil.rmtree(parts, ignore_errors=True)
    ingredients = replace(write_ingredients(parts, campaign), recipe=recipe)
    (parts / "model" / "config.json").write_text(config_text(packed_config(config, codecs)), encoding="utf-8")
    with (parts / "model" / "model.safetensors").open("wb") as file:
        left = file_bytes(stored) - file.write(header_bytes(stored))
        while left:
            left -= file.write(os.urandom(min(left, BLOCK_BYTES)).translate(FINITE))
    ingredients.bundle(folder)
    shutil.rmtree(parts)


if __name__ == "__main__":
    sys.exit(main())
