from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from quantize.calibration.layerwise import LayerwiseModel
from submission.errors import UserError
from submission.miniature.model import PROMPT, SMALL
from submission.model.codecs import Affine
from submission.model.families import family_of, read_config, tensors
from submission.model.forecast import resolve_codecs
from submission.runtime.loading import load_model, load_processor
from submission.runtime.prompt import build_inputs, render_prompt
from tests.support.tiny_qwen import build_checkpoint

LAST = "language_model.model.layers.1.mlp.down_proj.weight"
PROJECTOR = "multi_modal_projector.linear.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("base"), ["the cat sleeps", "die Katze schläft"], SMALL, 1)


@pytest.fixture(scope="module")
def batches(base) -> list[dict[str, torch.Tensor]]:
    """Two batches of recordings of several lengths, so that there is padding everywhere."""
    processor, draw = load_processor(base), np.random.default_rng(3)
    made = []
    for lengths in ((20_000, 90_000), (50_000,)):
        waveforms = [draw.normal(0, 0.1, n).astype(np.float32) for n in lengths]
        prompts = [render_prompt(PROMPT, "German")] * len(lengths)
        inputs = build_inputs(processor, waveforms, prompts, ["die Katze schläft"] * len(lengths))
        made.append({name: tensor for name, tensor in inputs.items() if name != "labels"})
    return made


def ordinary(base, batches, observed) -> tuple[list[torch.Tensor], dict[str, list[torch.Tensor]]]:
    """(Outputs of the last decoder layer, inputs of the observed weights' linears) in the library's forward."""
    model, _ = load_model(base, "float32")
    states: list[torch.Tensor] = []
    inputs: dict[str, list[torch.Tensor]] = {name: [] for name in observed}
    model.model.language_model.layers[-1].register_forward_hook(lambda module, args, out: states.append(out))
    module_name = family_of(read_config(base)).module_name
    for name in observed:
        module = model.get_submodule(module_name(name.removesuffix(".weight")))
        module.register_forward_pre_hook(lambda module, args, name=name: inputs[name].append(args[0]))
    with torch.no_grad():
        for batch in batches:
            model(**batch, use_cache=False)
    return states, inputs


def nothing(weight: str, batch: int, inputs: torch.Tensor) -> None:
    pass


def test_the_states_and_every_linears_input_are_those_of_the_ordinary_forward(base, batches):
    specs = [s for s in tensors(read_config(base)) if s.packable and s.role not in ("embedding", "lm_head")]
    observed = [spec.name for spec in specs]
    states, inputs = ordinary(base, batches, observed)
    received: dict[str, dict[int, torch.Tensor]] = {name: {} for name in observed}
    model = LayerwiseModel(base, dtype=torch.float32, device="cpu")
    outputs = list(
        model.run(batches, observed, lambda weight, batch, inputs: received[weight].update({batch: inputs.clone()}))
    )
    assert [(part.stack, part.layer) for part in outputs] == [
        *(("audio", layer) for layer in (None, 0, 1)),
        *(("text", layer) for layer in (None, 0, 1)),
    ]
    assert len(outputs) == model.parts
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(outputs[-1].states, states, strict=True))
    for name in observed:
        assert all(torch.equal(received[name][batch], inputs[name][batch]) for batch in range(len(batches))), name


def layer_parameters(base: Path, stack: str, layer: int) -> int:
    audio = stack == "audio"
    specs = [s for s in tensors(read_config(base)) if s.layer == layer and s.role.startswith("audio") == audio]
    return sum(math.prod(spec.shape) for spec in specs)


def loaded_parameters(model: LayerwiseModel) -> int:
    """Return how many parameters are in memory now; those of layers are outside of the module tree."""
    modules = [model.model, *model._layers.values()]
    return sum(p.numel() for module in modules for p in module.parameters() if not p.is_meta)


def test_never_more_than_one_layer_has_its_weights(base, batches):
    model = LayerwiseModel(base, dtype=torch.float32, device="cpu")
    loaded: list[int] = []
    observed = [f"audio_tower.layers.{n}.fc1.weight" for n in range(2)]
    observed += [f"language_model.model.layers.{n}.mlp.up_proj.weight" for n in range(2)]
    for part in model.run(batches, observed, lambda *shown: loaded.append(loaded_parameters(model))):
        if part.layer is not None:
            assert loaded == [layer_parameters(base, part.stack, part.layer)] * len(batches)
        assert loaded_parameters(model) == 0
        loaded.clear()


def test_a_run_may_be_stopped_early_and_started_again(base, batches):
    model = LayerwiseModel(base, dtype=torch.float32, device="cpu")
    received: list[int] = []
    for _ in model.run(batches, [PROJECTOR], lambda weight, batch, inputs: received.append(batch)):
        if received:
            break
    assert received == [0, 1] and loaded_parameters(model) == 0
    first, second = ([part.states[0].clone() for part in model.run(batches, [], nothing)] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)) and received == [0, 1]


def test_states_have_the_dtype_of_the_computation(base, batches):
    model = LayerwiseModel(base, dtype=torch.bfloat16, device="cpu")
    received = []
    parts = list(model.run(batches[1:], [LAST], lambda weight, batch, inputs: received.append(inputs.dtype)))
    assert parts[-1].states[0].dtype == torch.bfloat16 and received == [torch.bfloat16]


def test_a_packed_model_is_refused(base, tmp_path):
    from quantize.packing.pack import pack_checkpoint

    codecs = resolve_codecs(read_config(base), {"mlp": Affine(bits=4, group_size=64)})
    pack_checkpoint(base, tmp_path, codecs, solver="hqq")
    with pytest.raises(UserError, match="is packed already"):
        LayerwiseModel(tmp_path, dtype=torch.float32, device="cpu")
