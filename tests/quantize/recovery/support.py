"""A small packed model and a corpus of noise to recover it on."""

from __future__ import annotations

from pathlib import Path

from quantize.packing.pack import pack_checkpoint
from quantize.recovery.recover import recover_system
from submission.miniature.model import END, LANGUAGES, PROMPT
from submission.model.codecs import Affine, Codec
from submission.model.families import read_config
from submission.model.forecast import resolve_codecs
from submission.runtime.prompt import render_prompt
from submission.system.recipe.quantize_options import RecoveryOptions
from submission.text.corpus import Utterance, write_corpus
from tests.support.recordings import write_noise

UTTERANCES = 24
SECONDS = 0.4
PROMPTS = {f"en-{code}": render_prompt(PROMPT, name) for code, name in LANGUAGES.items()}
OPTIONS = RecoveryOptions(pairs=("en-de", "en-zh"), utterances=0, steps=12, batch_size=4, learning_rate=0.01, seed=1)
SENTENCES = ("die Katze schläft", "Katze", "die Katze")


def write_data(folder: Path) -> Path:
    """Write train.jsonl and, below the same folder, the recording that it cuts."""
    length = round(16_000 * SECONDS)
    utterances = [
        Utterance(
            id=f"{number}-{code}",
            audio="train/talk.wav",
            start=number * length,
            end=(number + 1) * length,
            source="the cat",
            target=SENTENCES[number % len(SENTENCES)],
            source_lang="en",
            target_lang=code,
            recording="talk",
        )
        for number in range(UTTERANCES)
        for code in LANGUAGES
    ]
    write_corpus(folder / "train.jsonl", utterances)
    write_noise(folder / "train" / "talk.wav", seconds=UTTERANCES * SECONDS + 1)
    return folder


def coarse_codecs(base: Path, *, meta_bits: int | None = None) -> dict[str, Codec]:
    """Codecs of all weights: 2 bits, or 4 for the audio encoder."""
    rules: dict[str, Codec] = {
        "*": Affine(bits=2, group_size=128, meta_bits=meta_bits),  # type: ignore[arg-type]
        "audio": Affine(bits=4, group_size=64),
    }
    return resolve_codecs(read_config(base), rules)


def pack_coarsely(base: Path, out: Path, codecs: dict[str, Codec]) -> Path:
    out.mkdir(parents=True)
    pack_checkpoint(base, out, codecs, solver="hqq")
    return out


def recover(base: Path, packed: Path, data: Path, out: Path, options: RecoveryOptions = OPTIONS) -> Path:
    out.mkdir(exist_ok=True)
    recover_system(base, packed, data, data, out, options=options, prompts=PROMPTS, end_token=END)
    return out
