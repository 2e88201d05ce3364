"""No module names a model family but the family's own two files; held by reading the sources."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What only a family's own files may name: classes, the model type, tensors, features, sections and special tokens.
NAMES = {
    "qwen2_audio": (
        r"qwen2_?audio|qwen2-audio|\bqwen2\b|audio_tower|multi_modal_projector"
        r"|feature_attention_mask|audio_token_index|<\|AUDIO\|>|max_source_positions|n_mel|nb_max_frames|hop_length"
    ),
    "gemma4_unified": (
        r"gemma|embed_audio|embed_vision|vision_embedder|vision_config|layer_scalar|input_features_mask"
        r"|per_layer_config|global_head_dim|softcapping|audio_embed_dim|audio_samples_per_token"
    ),
}
# What the library calls the same in several families.
SHARED = r"language_model|input_features|audio_config|text_config"
ANY_WORDS = "|".join((*NAMES.values(), SHARED))

OWN = {
    name: {f"submission/{file}.py" for file in (f"model/families/{name}", f"runtime/families/{name}")}
    | {f"submission/model/families/{name}_files.py"}
    for name in NAMES
}
ANY_OWN = set().union(*OWN.values())

# File or folder where else a family is named -> why.
ALLOWED = {
    "submission/model/families/__init__.py": "its line in FAMILIES",
    "submission/runtime/families/__init__.py": "its line in RUNTIMES",
    "submission/miniature/model.py": "builds the miniature's model, which is one of the family",
    "submission/miniature/gemma4.py": "builds the second miniature's model, which is one of the family",
    "submission/miniature/forge.py": "its shapes in SHAPES and its line in LEARNERS",
    "submission/miniature/training.py": "computes the miniature's training loss, with the encoder's pieces of its own",
    "submission/miniature/gemma4_training.py": "computes the second miniature's training loss, layer by layer",
    "evaluate/rehearsal/published_models.py": "writes the campaign's base model as it is published",
    "evaluate/rehearsal/qwen_vocabulary.py": "writes that model's tokenizer files as they are published",
    "quantize/bench/language_model/": "the name of the bench, which runs a language model of another kind",
    "submission/miniature/evaluation.py": "evaluates the miniature by the stock class, independent of the runtime",
}

# Data that names a family or its model, and why.
DATA = {
    "submission/campaigns/iwslt26.toml": "the organisers' base model, its family and its prompt",
    "submission/campaigns/iwslt27.toml": "the next edition's base model and its family",
    "submission/campaigns/miniature.toml": "the miniature's base model, its family and its prompt",
    "submission/model/families/gemma-4-12B-it.config.json": "the published configuration of the next base model",
    "submission/model/families/Qwen2-Audio-7B.config.json": "the published configuration of the base model",
    "submission/campaigns/miniature-gemma4.toml": "the second miniature's base model, its family and its prompt",
    "submission/miniature/gemma4/config.json": "the second miniature's checkpoint",
    "submission/miniature/gemma4/forge.json": "the name of its shape",
    "submission/miniature/gemma4/tokenizer.json": "the second miniature's checkpoint: its special tokens",
    "submission/recipes/ablation.toml": "sizes on the campaign miniature-gemma4",
    "submission/recipes/contrastive.toml": "what differs on the campaign miniature-gemma4",
    "submission/recipes/finetuned.toml": "what differs on the campaign miniature-gemma4",
    "submission/recipes/frontier-2gb.toml": "its size on the campaign miniature-gemma4",
    "submission/recipes/frontier-3gb.toml": "its size on the campaign miniature-gemma4",
    "submission/miniature/gemma4/processor_config.json": "the second miniature's checkpoint",
    "submission/miniature/gemma4/tokenizer_config.json": "the second miniature's checkpoint: its special tokens",
    "submission/miniature/base/config.json": "the miniature's checkpoint",
    "submission/miniature/base/processor_config.json": "the miniature's checkpoint",
    "submission/miniature/base/tokenizer.json": "the miniature's checkpoint: its special tokens",
    "submission/miniature/base/tokenizer_config.json": "the miniature's checkpoint: its special tokens",
}

FILES = sorted(
    path.relative_to(ROOT)
    for package in ("submission", "train", "quantize", "segment", "evaluate")
    for path in (ROOT / package).rglob("*.py")
)


def named(path: Path) -> Iterator[str]:
    """Yield every identifier and string constant of a source but its docstrings."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value
        for field in ("id", "attr", "name", "arg", "module"):
            if isinstance(value := getattr(node, field, None), str):
                yield value


@pytest.mark.parametrize("path", FILES, ids=Path.as_posix)
@pytest.mark.parametrize(("family", "words"), [*NAMES.items(), (None, SHARED)])
def test_only_a_familys_own_files_name_it(path, family, words):
    found = {name for name in named(path) if re.search(words, name, re.IGNORECASE)}
    if path.as_posix() not in OWN.get(family, ANY_OWN) and not path.as_posix().startswith(tuple(ALLOWED)):
        assert not found, f"{path} names the family {family}: {sorted(found)}"


def test_each_exception_is_needed():
    for start in ALLOWED:
        names = {name for path in FILES if path.as_posix().startswith(start) for name in named(path)}
        assert any(re.search(ANY_WORDS, name, re.IGNORECASE) for name in names), start


def test_the_data_that_names_a_family_is_listed():
    pattern = re.compile(ANY_WORDS, re.IGNORECASE)
    files = [path for end in ("toml", "json") for path in (ROOT / "submission").rglob(f"*.{end}")]
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in files}
    # Comments of a TOML file may speak of any model.
    uncommented = {name: re.sub(r"(?m)^\s*#.*$", "", text) for name, text in texts.items()}
    assert {name for name, text in uncommented.items() if pattern.search(text)} == DATA.keys()
