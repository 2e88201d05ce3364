"""Set a few weights of a random model so that it answers in the script of the language that its prompt names.

Outputs of purely random weights are the same for every pair and of no script, which `verify` refuses. Of the model's
width one channel per language marks the language's name in the embedding, and another collects it: the first layer of
the decoder, whose attention is about uniform in random weights, copies the mean of the first channel over all positions
to the second, and rows of the head that stand for letters of the language's script read that. All other weights stay
random.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from submission.model.families import family_of, tensors
from submission.text.scripts import letters_by_script, scripts_of

if TYPE_CHECKING:
    import torch

NAME_SIZE = 10.0
"""Of a name's row of the embedding in its channel; other weights have a standard deviation of 0.02."""
COPIED_PER_CHANNEL = 0.04
"""Factor of the copy, per channel of the model's width: the wider, the larger is what random layers add."""
HEAD_SIZE = 0.5


def write_in_prompted_script(
    state: Mapping[str, torch.Tensor], config: dict[str, Any], ids: Mapping[bytes, int], languages: Mapping[str, str]
) -> None:
    """Change a random model's weights in place.

    state: hub name -> weight; ids: token -> its id; languages: name in the prompt -> language (`German` -> `de`).
    """
    first = {s.role: state[s.name] for s in tensors(config) if s.layer in (0, None) and s.name.endswith(".weight")}
    embedding, head, values, outputs = (first[role] for role in ("embedding", "lm_head", "attn.v", "attn.o"))
    marked = slice(len(languages))
    used = slice(2 * len(languages))
    embedding[:, used] = 0
    for name, tensor in state.items():
        if family_of(config).role_of(name) == "projector":
            tensor[used] = 0
    values[marked], outputs[:, marked] = 0, 0
    for channel, (name, language) in enumerate(languages.items()):
        collected = channel + len(languages)
        embedding[ids[f" {name}".encode()], channel] = NAME_SIZE
        values[channel, channel] = 1
        outputs[collected, channel] = COPIED_PER_CHANNEL * len(outputs)
        head[:, collected] = 0
        head[letters_of(language, ids), collected] = HEAD_SIZE


def letters_of(language: str, ids: Mapping[bytes, int]) -> list[int]:
    """Return the ids of the tokens that are letters of a language's scripts and nothing else, a blank before them."""
    scripts, found = scripts_of(language), []
    for token, number in ids.items():
        text = token.decode("utf-8", errors="replace").removeprefix(" ")
        if text.isalpha() and letters_by_script(text).keys() <= scripts:
            found.append(number)
    return found
