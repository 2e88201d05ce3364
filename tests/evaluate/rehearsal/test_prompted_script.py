"""A random model answers in the script of the language that its prompt names."""

from __future__ import annotations

import pytest
import torch

from evaluate.rehearsal.prompted_script import letters_of, write_in_prompted_script
from evaluate.rehearsal.published_models import base_config
from submission.model.families import family_of
from submission.runtime.families import runtime_of

LANGUAGES = {"German": "de", "Chinese": "zh"}
TOKENS = ["Translate", " to", " German", " Chinese", ":", "äh", " Bär", " 语音", "翻译", "слово", "4", "a翻", "�"]
IDS = {token.encode(): number for number, token in enumerate(TOKENS)} | {b"\xe4\xb8": len(TOKENS)}


def test_letters_are_tokens_of_nothing_but_a_language_s_script():
    assert [TOKENS[n] for n in letters_of("zh", IDS)] == [" 语音", "翻译"]
    assert [TOKENS[n] for n in letters_of("de", IDS)] == ["Translate", " to", " German", " Chinese", "äh", " Bär"]


@pytest.mark.parametrize("layers", [1, 4])
def test_the_name_in_the_prompt_decides_the_script_of_the_answer(layers):
    config = base_config("Qwen2-Audio-7B", "narrow", layers)
    config["text_config"] = config["text_config"] | {"vocab_size": 64}
    model_class = runtime_of(config).model_class
    torch.manual_seed(0)
    model = model_class._from_config(model_class.config_class.from_dict(config), dtype=torch.bfloat16).eval()
    state = {family_of(config).hub_name(name): weight.detach() for name, weight in model.named_parameters()}
    write_in_prompted_script(state, config, IDS, LANGUAGES)
    filler = torch.randint(0, 5, (1, 200), generator=torch.Generator().manual_seed(1))
    filler[(filler == IDS[b" German"]) | (filler == IDS[b" Chinese"])] = 0
    for name, language in LANGUAGES.items():
        prompt = torch.tensor([[IDS[b"Translate"], IDS[b" to"], IDS[f" {name}".encode()], IDS[b":"]]])
        answers = set()
        for start in range(20):
            ids = torch.cat([filler[:, start:], prompt], dim=1)
            with torch.no_grad():
                answers.add(int(model(input_ids=ids).logits[0, -1].argmax()))
        assert answers <= set(letters_of(language, IDS))
