"""Bundles changed at random that `verify` calls clean, decoded by `rerun`: translated, or refused with one clear line.

A case is its number, as in `tests.submission.bundle_fuzzing`. `python -m tests.evaluate.rerun_fuzzing --work DIR` runs
many on the miniature's base model; a killed run resumes.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from random import Random

import numpy as np
import soundfile

from evaluate.__main__ import make_parser
from quantize.packing.pack import pack_checkpoint
from submission.bundle.checks import exit_status, verify
from submission.bundle.description import description_fields, render_description
from submission.bundle.manifest import NAME, build_manifest, write_manifest
from submission.bundle.untrusted.bundle_view import BundleView
from submission.bundle.untrusted.strict_json import Unreadable
from submission.cli import run
from submission.errors import UserError
from submission.model.codecs import Affine
from submission.model.families import read_config
from submission.model.forecast import resolve_codecs
from submission.store.digests import write_text
from submission.system.campaign import read_campaign
from submission.system.data_folder import SHIPPED
from submission.text.segments import SAMPLE_RATE
from tests.submission.mutations import VALUES, mutate_value, mutated, places
from tests.support.fuzz_cases import Hang, at_most, run_cases, state

CAMPAIGN, TESTSET = "miniature", "ACL"
SECONDS = 600.0
"""Of the processor: the largest recipe that verifies may decode with beams, and fall back."""
MOST_TRIES = 60
"""Changes tried until one is clean."""


def make_shared(place: Path) -> Path:
    """Write a good bundle with the miniature's own weights, and the recording of its segments; return the bundle."""
    from tests.submission.conftest import write_ingredients

    ingredients = write_ingredients(place / "ingredients", read_campaign(CAMPAIGN))
    model = ingredients.folder / "model"
    shutil.rmtree(model)
    model.mkdir()
    codecs = resolve_codecs(read_config(SHIPPED["base"]), {"*": Affine(bits=3, group_size=128)})
    pack_checkpoint(SHIPPED["base"], model, codecs, solver="hqq")
    (place / "audio").mkdir()
    noise = np.random.default_rng(0).standard_normal(3 * SAMPLE_RATE) * 0.1
    soundfile.write(place / "audio" / "talk1.wav", noise.astype(np.float32), SAMPLE_RATE)
    return ingredients.bundle(place / "pristine")


# --- changes that a checker may find nothing wrong with ---


def change(bundle: Path, chance: Random) -> None:
    """Change a setting, a weight, an output or a segment."""
    files = sorted(p for p in bundle.rglob("*") if p.is_file() and p.name not in (NAME, "campaign.json"))
    path = chance.choice([p for p in files if p.parent.name != "description"])
    if path.suffix == ".json":
        _change_setting(path, chance)
    elif path.suffix == ".safetensors":
        _change_weights(path, chance)
    elif path.suffix == ".yaml":
        numbers = list(re.finditer(r"\d+\.\d+", text := path.read_text(encoding="utf-8")))
        found = chance.choice(numbers)
        moved = max(0.0, float(found[0]) + chance.choice((-0.5, -0.01, 0.01, 0.5)))
        path.write_text(f"{text[: found.start()]}{moved}{text[found.end() :]}", encoding="utf-8")
    else:
        path.write_bytes(mutated(path.read_bytes(), chance))


def _change_setting(path: Path, chance: Random) -> None:
    value = json.loads(path.read_bytes())
    container, key = chance.choice(places(value) or [({"": 0}, "")])
    now = container[key]
    if isinstance(now, bool):
        container[key] = not now
    elif isinstance(now, (int, float)) and chance.random() < 0.8:
        container[key] = chance.choice((now + 1, now - 1, now * 2, now // 2, now / 2, 0, 1, now * 100))
    elif chance.random() < 0.3:
        container[key] = chance.choice(VALUES)
    else:
        mutate_value(value, chance)
    with suppress(ValueError, RecursionError):
        path.write_text(json.dumps(value), encoding="utf-8")


def _change_weights(path: Path, chance: Random) -> None:
    data = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    for _ in range(chance.choice((1, 10, 1_000))):
        place = chance.randrange(begin, len(data) - 8)
        data[place : place + 8] = chance.choice((b"\xff" * 8, b"\x00" * 8, b"\x80\x7f" * 4, chance.randbytes(8)))
    path.write_bytes(data)


def seal(bundle: Path) -> None:
    """Derive descriptions and manifest again, as whoever changes a bundle with this program's help would."""
    view = BundleView(bundle, read_campaign(CAMPAIGN))
    if view.facts is None or isinstance(view.recipe, Unreadable) or isinstance(view.manifest, Unreadable):
        return
    for pair in view.campaign.pairs:
        fields = description_fields(view.facts, view.campaign, view.recipe, pair.name, view.efficiency)
        write_text(bundle / "description" / f"{pair.name}.txt", render_description(fields))
    made_from = {name: view.manifest[name] for name in ("stages", "inputs", "provenance")}
    (bundle / NAME).unlink()
    named = {"campaign": view.campaign, "recipe": view.recipe, "facts": view.facts}
    write_manifest(bundle, build_manifest(bundle, **named, **made_from))


def clean_mutant(pristine: Path, chance: Random, place: Path) -> Path | None:
    """Return a changed bundle in which `verify` finds no error; None where MOST_TRIES changes gave none."""
    bundle = place / "bundle"
    for _ in range(MOST_TRIES):
        shutil.rmtree(bundle, ignore_errors=True)
        shutil.copytree(pristine, bundle)
        for _ in range(chance.choice((1, 1, 2))):
            change(bundle, chance)
        with suppress(UserError, UnicodeEncodeError):
            seal(bundle)
            if not exit_status(verify(bundle, CAMPAIGN)):
                return bundle
    return None


def hold(number: int, shared: Path, place: Path) -> None:
    """Decode the clean mutant of a case, and hold what the module's head promises."""
    chance = Random(number)
    bundle = clean_mutant(shared / "pristine", chance, place)
    if bundle is None:
        return
    audio, out = shared / "audio", place / "out"
    arguments = ["rerun", "--bundle", str(bundle), "--campaign", CAMPAIGN, "--testset", TESTSET, "--audio", str(audio)]
    arguments += ["--pair", chance.choice(("en-de", "en-zh")), "--out", str(out)]
    arguments += ["--resegment"] if chance.random() < 0.3 else []
    before, said, errors = [*state(bundle), *state(audio)], io.StringIO(), io.StringIO()
    try:
        with at_most(SECONDS), redirect_stdout(said), redirect_stderr(errors):
            status = run(make_parser(), arguments)
    except (Exception, Hang, SystemExit) as error:
        raise AssertionError(f"case {number}: {error!r}") from error
    last = errors.getvalue().strip().rpartition("\n")[2]
    assert status in (0, 2), f"case {number}: exit status {status}"
    assert status == 0 or last.startswith("error: "), f"case {number}: refused without a reason: {last}"
    assert all(c.isprintable() or c == "\n" for c in said.getvalue() + last), f"case {number}: unprintable"
    assert [*state(bundle), *state(audio)] == before, f"case {number}: something was written"


def main() -> int:
    def begin(place: Path):
        make_shared(place)
        return lambda number, scratch: hold(number, place, scratch)

    return run_cases("reruns", begin)


if __name__ == "__main__":
    sys.exit(main())
