"""Beside the published SHAS code: `nox -s shas_parity`, or `python tests/segment/parity.py --clone DIR`.

The code (mt-upc/SHAS, MIT) has no packaging and needs libraries of its time, so it runs in a process of its own with
stand-ins for what it takes from torchaudio and scikit-learn, on a checkpoint and a wav2vec 2.0 of a few
thousand parameters. Compared are: the segments of random probabilities (equal), the probabilities of recordings
(within 1e-4, batched as published), the segments of those recordings (equal), and the time on one core.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

import numpy as np
import soundfile

SHAS = "https://github.com/mt-upc/SHAS"
COMMIT = "418b5e6a4e48d50c4fd79acb8ba1d4323b3f153c"
ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden" / "probabilities"
RATE = 16_000
TRACKS = 2000
LENGTHS = (43.0, 67.3, 21.9, 20.0, 12.34, 181.7, 40.0)
"""Seconds. Not 30, 70 or 270, nor under 2, at which the published code fails."""
BATCHES = ((14, 1), (3, 1), (14, 2), (5, 3))
"""Windows per batch, passes."""
TURNS = 3
SHORT, LONG = tuple(8 + 0.37 * i for i in range(24)), (601.0,)


# --- the published side: a process that knows nothing of this repository's packages ---


def stand_in(name: str, **attributes) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module
    return module


def import_published(clone: Path, width: int):
    """Return the published module `segment`, its head as wide as the tiny encoder."""
    import torch
    from transformers import Wav2Vec2Model  # noqa: F401 - before the stand-ins, which it would look at

    def info(path):
        header = soundfile.info(str(path))
        return types.SimpleNamespace(num_frames=header.frames, sample_rate=header.samplerate)

    def load(path, frame_offset, num_frames):
        samples, rate = soundfile.read(str(path), int(num_frames), int(frame_offset), dtype="float32")
        return torch.from_numpy(samples)[None], rate

    backend = stand_in("torchaudio.backend", sox_io_backend=types.SimpleNamespace(load=load))
    stand_in("torchaudio", info=info, backend=backend)
    stand_in("sklearn.metrics", f1_score=None)
    stand_in("sklearn")
    sys.path[0] = str(clone / "src" / "supervised_hybrid")
    import constants

    constants.HIDDEN_SIZE = width
    torch.load = functools.partial(torch.load, weights_only=False)  # a checkpoint that this script has written
    import segment

    return segment


def published_side(clone: Path, work: Path) -> None:
    """Run the tasks of work/tasks.json; write probabilities and segments into work."""
    import torch

    torch.set_num_threads(1)
    tasks = json.loads((work / "tasks.json").read_text(encoding="utf-8"))
    published = import_published(clone, tasks["width"])
    if tasks["random"]:
        arrays = np.load(work / "random.npz")
        cut = {
            name: [(s.offset, s.duration) for s in published.pdac(arrays[name], 18, 0.2, 0.5, False)] for name in arrays
        }
        (work / "random.json").write_text(json.dumps(cut), encoding="utf-8")
    infer = published.infer
    for task in tasks["runs"]:
        recorded = []

        def record(*arguments, recorded=recorded):
            probabilities, targets = infer(*arguments)
            recorded.append(probabilities)
            return probabilities.copy(), targets

        published.infer = record
        started = time.perf_counter()
        published.segment(
            argparse.Namespace(
                path_to_segmentation_yaml=str(work / f"{task['name']}.yaml"),
                path_to_checkpoint=str(work / "shas.pt"),
                path_to_wavs=str(work / task["wavs"]),
                inference_batch_size=task["batch_size"],
                inference_segment_length=20,
                inference_times=task["inference_times"],
                dac_max_segment_length=18,
                dac_min_segment_length=0.2,
                dac_threshold=0.5,
                not_strict=False,
            )
        )
        seconds = time.perf_counter() - started
        np.savez(
            work / f"{task['name']}.npz", seconds=seconds, **{f"{i:04d}": array for i, array in enumerate(recorded)}
        )


# --- our side ---


def get_clone(folder: Path) -> Path:
    """Return a clone at the pinned commit, or exit saying that it needs a network."""
    commands = (["git", "init", "-q"], ["git", "fetch", "-q", "--depth", "1", SHAS, COMMIT])
    folder.mkdir(parents=True)
    for command in (*commands, ["git", "checkout", "-q", "FETCH_HEAD"]):
        if subprocess.run(command, cwd=folder, check=False).returncode:
            sys.exit(
                f"shas_parity needs a network to clone {SHAS} at {COMMIT[:12]}, and there is none; "
                "where you have a clone, name it: nox -s shas_parity -- --clone DIR"
            )
    return folder


def random_probabilities() -> dict[str, np.ndarray]:
    """Return probabilities of all kinds and lengths without ties, which the published sort leaves open."""
    rng = np.random.default_rng(7)
    arrays = {}
    for i in range(TRACKS):
        frames = int(rng.integers(20, 4000))
        noise = rng.random(frames)
        if i % 3:
            pauses = np.repeat(rng.random(frames // 50 + 1) < 0.3, 50)[:frames]
            noise = np.where(pauses, 0.4 * noise, 1 - 0.3 * noise * rng.random())
        arrays[f"t{i}"] = noise
    return {name: array for name, array in arrays.items() if (array >= 0.5).any()}


def prepare(work: Path) -> None:
    """Write weights, recordings and random probabilities."""
    from segment.classifier.convert import convert
    from tests.segment.tiny import speak, write_checkpoint, write_wav2vec2

    write_checkpoint(work / "shas.pt", str(write_wav2vec2(work / "wav2vec2")))
    convert(work / "shas.pt", None, work / "classifier")
    np.savez(work / "random.npz", **random_probabilities())
    for name, lengths in (("lengths", LENGTHS), ("short", SHORT), ("long", LONG)):
        (work / name).mkdir()
        for i, seconds in enumerate(lengths):
            soundfile.write(work / name / f"{i:04d}.wav", speak(seconds, i), RATE)


def run_published(clone: Path, work: Path, runs: list[dict], *, random: bool = False) -> None:
    """Let the published side do these runs and, where requested, split the random probabilities."""
    from tests.segment.tiny import WIDTH

    (work / "tasks.json").write_text(json.dumps({"width": WIDTH, "runs": runs, "random": random}), encoding="utf-8")
    command = [
        sys.executable,
        "-W",
        "ignore",
        __file__,
        "--clone",
        str(clone.absolute()),
        "--published-side",
        str(work),
    ]
    quiet = {**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    subprocess.run(command, check=True, cwd=work, env=quiet, stdout=subprocess.DEVNULL)


def compare_random_probabilities(work: Path) -> bool:
    from segment.methods.pdac import Limits, split

    arrays, published = np.load(work / "random.npz"), json.loads((work / "random.json").read_text(encoding="utf-8"))
    limits = Limits()
    different = [
        name
        for name, cuts in published.items()
        if [[limits.seconds(a), limits.seconds(b - a)] for a, b in split(arrays[name], limits)] != cuts
    ]
    print(f"segments of random probabilities: {len(published) - len(different)} of {len(published)} equal")
    return len(different) <= len(published) // 1000  # frames whose probabilities tie


def ours(work: Path, run: dict, original: bool) -> tuple[list[np.ndarray], float]:
    """Return our probabilities of a run's recordings, and the seconds of computing and splitting them."""
    from functools import partial

    from segment.classifier.compatibility import original_probabilities
    from segment.classifier.model import load_classifier
    from segment.methods.pdac import Limits, split
    from segment.probabilities.windows import AudioSource, frame_probabilities
    from submission.runtime.audio import checked_length, read_slice

    started = time.perf_counter()
    classifier = load_classifier(work / "classifier")
    paths = sorted((work / run["wavs"]).glob("*.wav"))
    sources = (AudioSource(read=partial(read_slice, path), samples=checked_length(path)) for path in paths)
    options = {"inference_times": run["inference_times"], "batch_size": run["batch_size"]}
    if original:
        arrays = original_probabilities(sources, lambda: classifier, **options)
    else:
        arrays = frame_probabilities(sources, classifier.probabilities, **options)
    for array in arrays:
        split(array, Limits())
    return arrays, time.perf_counter() - started


def compare_recordings(work: Path, runs: list[dict]) -> bool:
    from segment.methods.pdac import Limits, split

    worst, same, count = 0.0, 0, 0
    for run in runs:
        published = np.load(work / f"{run['name']}.npz")
        passes = [published[key] for key in sorted(published) if key != "seconds"]
        times = run["inference_times"]
        for i, array in enumerate(ours(work, run, original=True)[0]):
            theirs = sum(passes[i * times : (i + 1) * times]) / times
            worst = max(worst, float(np.abs(array - theirs).max()))
            same += split(array, Limits()) == split(theirs, Limits())
            count += 1
    print(f"probabilities of {count} recordings: largest difference {worst:.1e}; segments of {same} equal")
    return worst < 1e-4


def compare_time(clone: Path, work: Path, wavs: str) -> None:
    """Print how many times as long as ours the published code takes on one core, three times in turn."""
    run = {"name": f"time-{wavs}", "wavs": wavs, "batch_size": 14, "inference_times": 1}
    ratios = []
    for _ in range(TURNS):
        run_published(clone, work, [run])
        _, seconds = ours(work, run, original=False)
        ratios.append(float(np.load(work / f"{run['name']}.npz")["seconds"]) / seconds)
    print(f"time on one core, {wavs}: published / ours = {', '.join(f'{r:.2f}' for r in ratios)}", flush=True)


def write_golden(work: Path) -> None:
    """Write the published code's probabilities of the first recordings, for the ordinary tests."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for size, times in BATCHES[:3]:
        published = np.load(work / f"lengths-{size}-{times}.npz")
        mean = sum(published[f"{i:04d}"] for i in range(times)) / times
        record = {
            "seconds": LENGTHS[0],
            "seed": 0,
            "batch_size": size,
            "inference_times": times,
            "probabilities": [round(float(p), 6) for p in mean],
        }
        path = GOLDEN / f"batch_{size}_passes_{times}.json"
        path.write_text(json.dumps(record) + "\n", encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clone", type=Path, help="a clone of SHAS (default: clone it)")
    parser.add_argument("--golden", action="store_true", help="write golden/probabilities again")
    parser.add_argument("--published-side", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.published_side:
        published_side(args.clone, args.published_side)
        return
    sys.path.insert(0, str(ROOT))
    os.environ["OMP_NUM_THREADS"] = "1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core, for the loader's processes too
    import torch

    torch.set_num_threads(1)
    work = Path(tempfile.mkdtemp(prefix="shas-parity-"))
    try:
        clone = args.clone or get_clone(work / "clone")
        prepare(work)
        runs = [
            {"name": f"lengths-{size}-{times}", "wavs": "lengths", "batch_size": size, "inference_times": times}
            for size, times in BATCHES
        ]
        run_published(clone, work, runs, random=True)
        if args.golden:
            write_golden(work)
        good = compare_random_probabilities(work)
        good &= compare_recordings(work, runs)
        for wavs in ("long", "short"):
            compare_time(clone, work, wavs)
    finally:
        shutil.rmtree(work)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
