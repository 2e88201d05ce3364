"""Score with COMET from a local checkpoint, without network access.

Runs in the score environment, which shares files but no interpreter with the build environment: this module imports
only the standard library, the standard-library part of `submission`, and COMET's own dependencies. The model is a
folder as `hf download Unbabel/wmt22-comet-da --local-dir DIR` makes it, with its encoder's tokenizer and
configuration beside it:

    hparams.yaml
    checkpoints/model.ckpt
    encoder/                or, without it, the encoder that model.ckpt names, in the hub's cache

COMET accepts much that changes a score silently: a checkpoint that lacks parameters (they stay random), a missing
`pkg_resources` (the encoder's layers are then weighted differently), half precision on its command line. Each is
checked before scoring starts. A checkpoint is a pickle, which can run arbitrary code when it is read: only tensors and
plain containers are allowed.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from submission.errors import UserError
from submission.system.data_folder import COMET_CHECKPOINT, COMET_ENCODER, COMET_HPARAMS

if TYPE_CHECKING:
    from evaluate.scoring.score import MetricScore, ScoredLine

CLASSES = ("regression_metric", "unified_metric", "xcomet_metric")
"""Classes of models that compare with a reference, by the name in hparams.yaml."""
BELOW = {"transformers": 5, "numpy": 2, "setuptools": 81}
"""Library -> the first major version that COMET does not work with."""
TOKENIZERS = ("tokenizer.json", "sentencepiece.bpe.model", "spiece.model", "vocab.txt")
BATCH_SIZE = 16
DECIMALS = 4
ENVIRONMENT = "run `nox -s score`, which makes the environment that COMET needs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comet:
    """A loaded model with the signature of its scores."""

    model: Any
    device: str
    """`cpu` or `cuda`."""
    signature: str


def load(folder: Path, digest: str) -> Comet:
    """Return the model of a checkpoint folder, in float32.

    digest: of the folder, for the signature. Raises UserError where the environment or the folder is unsuitable.
    """
    version = check_environment()
    # No download for any name in the model; and no environment variable may allow arbitrary pickles.
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hparams = read_hparams(folder / COMET_HPARAMS)
        content = read_checkpoint(folder / COMET_CHECKPOINT)
        name = str(content["hyper_parameters"].get("pretrained_model"))
        model = _build(folder, hparams, content, find_encoder(folder, name))
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    import torch

    settings = {
        "class": hparams["class_identifier"],
        "encoder": Path(name).name,
        "model": digest[:12],
        "precision": 32,
        "version": version,
    }
    return Comet(
        model=model.float().eval(),
        device="cuda" if torch.cuda.is_available() else "cpu",
        signature="|".join(f"{key}:{value}" for key, value in settings.items()),
    )


def check_environment() -> str:
    """Return COMET's version; UserError where this interpreter lacks what it needs."""
    where = f"environment of {sys.executable}"
    try:
        version = metadata.version("unbabel-comet")
        found = {name: metadata.version(name) for name in BELOW}
    except metadata.PackageNotFoundError as error:
        raise UserError(where, f"lacks {error.name}", ENVIRONMENT) from error
    for name, limit in BELOW.items():
        if int(found[name].partition(".")[0]) >= limit:
            raise UserError(where, f"expected {name} below {limit}, got {found[name]}", ENVIRONMENT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pkg_resources  # noqa: F401
    except ImportError as error:
        raise UserError(where, "lacks pkg_resources, without which COMET scores otherwise", ENVIRONMENT) from error
    return version


def read_hparams(path: Path) -> dict[str, Any]:
    """Return hparams.yaml; UserError for an unsupported class of model."""
    import yaml

    get = "download the model again"
    try:
        hparams = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(str(path), f"cannot be read as YAML ({' '.join(str(error).split())[:200]})", get) from error
    named = hparams.get("class_identifier") if isinstance(hparams, dict) else None
    if named not in CLASSES:
        what = f"class_identifier: expected {', '.join(CLASSES)}, got {named!r}"
        raise UserError(str(path), what, "choose a model that compares with a reference")
    return hparams


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content; UserError where it names anything but tensors and plain containers."""
    import torch

    get = "download the checkpoint again from its publisher"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f"is refused: it names {named[1]}, not a tensor" if named else f"is not a checkpoint ({error})"
        raise UserError(str(path), what, get) from error
    except (OSError, RuntimeError, EOFError, ValueError, LookupError) as error:
        raise UserError(str(path), f"is not a checkpoint ({' '.join(str(error).split())[:200]})", get) from error
    for key in ("state_dict", "hyper_parameters"):
        if not isinstance(content, Mapping) or not isinstance(content.get(key), Mapping):
            raise UserError(str(path), f"lacks {key!r}, which a checkpoint of COMET holds", get)
    return dict(content)


def find_encoder(folder: Path, name: str) -> Path:
    """Return the folder of the encoder's tokenizer and configuration; UserError where there is no local one."""
    for path in (folder / COMET_ENCODER, folder / name, Path(name)):
        if (path / "config.json").is_file():
            if not any((path / file).is_file() for file in TOKENIZERS):
                fix = "put the encoder's tokenizer beside its configuration"
                raise UserError(str(path), f"holds none of {', '.join(TOKENIZERS)}", fix)
            return path.absolute()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError) as error:
        get = f'hf download {name} --include "*.json" "*.model" --local-dir {folder / COMET_ENCODER}'
        raise UserError(str(folder), f"its encoder {name} is not on this machine", get) from error


def _build(folder: Path, hparams: Mapping[str, Any], content: Mapping[str, Any], encoder: Path) -> Any:
    """Return COMET's model with every parameter from the checkpoint."""
    import torch
    from comet.models import str2model

    where = str(folder / COMET_CHECKPOINT)
    # As comet.load_from_checkpoint does it, which has no argument for the encoder's folder.
    patched = {"layer_transformation": "softmax"} if hparams.get("layer_transformation") == "sparsemax_patch" else {}
    try:
        model = str2model[hparams["class_identifier"]].load_from_checkpoint(
            checkpoint_path=folder / COMET_CHECKPOINT,
            map_location=torch.device("cpu"),
            weights_only=True,
            strict=False,
            load_pretrained_weights=False,
            local_files_only=True,
            pretrained_model=str(encoder),
            **patched,
        )
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        what = f"cannot be loaded ({' '.join(str(error).split())[:300]})"
        raise UserError(where, what, f"check that {encoder} is the encoder that it was trained on") from error
    if missing := sorted(dict(model.named_parameters()).keys() - content["state_dict"].keys()):
        what = f"lacks {len(missing)} parameters (first: {missing[0]}), which COMET would initialize at random"
        raise UserError(where, what, "download the checkpoint again")
    return model


def segment_scores(comet: Comet, lines: Sequence[ScoredLine], where: str) -> list[float]:
    """Return COMET's score of every line, in percent; UserError for a line without transcript."""
    if not lines:
        raise UserError(where, "holds no lines", "score the test set again with `python -m evaluate score`")
    for number, line in enumerate(lines, 1):
        if line.source is None:
            what = "source: expected a text, got None"
            raise UserError(f"{where} line {number}", what, "add the transcript and score the test set again")
    samples = [{"src": line.source, "mt": line.hypothesis, "ref": line.reference} for line in lines]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = comet.model.predict(
            samples,
            batch_size=BATCH_SIZE,
            gpus=int(comet.device == "cuda"),
            num_workers=0,
            progress_bar=False,
        )
    scores = [100 * float(score) for score in outcome["scores"]]
    if len(scores) != len(lines) or not all(map(math.isfinite, scores)):
        raise UserError(
            where,
            f"COMET returned {len(scores)} scores for {len(lines)} lines, or one that is not finite",
            "check the checkpoint",
        )
    return scores


def comet_score(comet: Comet, segments: Sequence[float], like: MetricScore) -> MetricScore:
    """Return COMET's score of a test set: the mean of its lines with the mean's interval.

    like: the score of another metric on the same test set, which compares the same files.
    """
    import numpy as np

    from evaluate.scoring.metrics import RESAMPLES, SEED, draws, interval

    values = np.array(segments, np.float64)
    low, high = interval(draws(len(values)) @ values / len(values))
    return replace(
        like,
        metric="COMET",
        signature=f"bs:{RESAMPLES}|seed:{SEED}|{comet.signature}",
        value=round(float(values.mean()), DECIMALS),
        low=round(low, DECIMALS),
        high=round(high, DECIMALS),
    )
