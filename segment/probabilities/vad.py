"""The voice-activity detector silero-vad: the probability of speech every 32 ms, and stretches of speech.

The weights are those of the TorchScript model in its package (the safetensors beside it are of another training).
Only that file is read: importing the package would set torch to one thread for the whole process, and the scripted
model processes 32 ms a call. The network is small: per chunk of 512 samples, with the 64 before it, a short-time
spectrum by convolution, four convolutions, one LSTM step, and a probability. Everything before the LSTM is computed
for a block of chunks at once; the LSTM carries its state from block to block, so hours pass in bounded memory.

Probabilities become stretches of speech by the rules that the package's own `get_speech_timestamps` has by
default. Tests hold both against the package.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import pad

from segment.probabilities.windows import Read
from submission.text.segments import SAMPLE_RATE

CHUNK_SAMPLES = 512
"""Samples per probability: 32 ms."""
CONTEXT_SAMPLES = 64
BLOCK_CHUNKS = 1024
"""Chunks computed at once (33 s). Fixed, so that equal audio gives equal bits however it is read."""

ENTER, LEAVE = 0.5, 0.35
"""Speech begins at a probability of at least the first and may end below the second."""
SHORTEST_SPEECH = SAMPLE_RATE // 4
SHORTEST_PAUSE = SAMPLE_RATE // 10
MARGIN = SAMPLE_RATE * 30 // 1000
"""Samples by which each stretch is widened on both sides, or half the pause where that is less."""


class SileroVad(nn.Module):
    """silero-vad 6 at 16 kHz; its probabilities are those of the scripted model."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, chunks: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor] | None) -> tuple:
        """Return probabilities [chunks] and the LSTM's state after consecutive chunks [chunks, 64 + 512]."""
        spectrum = self.stft_conv(pad(chunks.unsqueeze(1), (0, 64), "reflect"))
        real, imaginary = spectrum.split(129, dim=1)
        hidden = (real.square() + imaginary.square()).sqrt()
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            hidden = convolution(hidden).relu()
        hidden, state = self.lstm(hidden.squeeze(-1), state)
        return self.final_conv(hidden.relu().unsqueeze(-1)).sigmoid().flatten(), state

    @torch.inference_mode()
    def probabilities(self, read: Read, samples: int) -> np.ndarray:
        """Return the speech probability of every 32 ms of a recording, float32 [ceil(samples / 512)].

        read: (start, end) in samples -> float32 [end - start]; called block by block, in order.
        """
        pieces, state = [], None
        context = torch.zeros(CONTEXT_SAMPLES)
        block = BLOCK_CHUNKS * CHUNK_SAMPLES
        for start in range(0, samples, block):
            end = min(start + block, samples)
            audio = torch.from_numpy(np.ascontiguousarray(read(start, end), dtype=np.float32))
            audio = torch.cat([context, pad(audio, (0, -len(audio) % CHUNK_SAMPLES))])
            probabilities, state = self(audio.unfold(0, CONTEXT_SAMPLES + CHUNK_SAMPLES, CHUNK_SAMPLES), state)
            pieces.append(probabilities.numpy())
            context = audio[-CONTEXT_SAMPLES:]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def load_vad() -> SileroVad:
    """Return the detector with the weights of the installed silero-vad package, ready for inference on a CPU."""
    with warnings.catch_warnings():
        # torch 2.13 deprecates TorchScript; the package ships these weights in no other form.
        warnings.filterwarnings("ignore", r".torch\.jit\.load", DeprecationWarning)
        scripted = torch.jit.load(str(scripted_model()), map_location="cpu").state_dict()
    vad = SileroVad()
    vad.load_state_dict({ours: scripted[f"_model.{theirs}"] for ours, theirs in _scripted_names().items()})
    return vad.eval()


def scripted_model() -> Path:
    """Return where the installed silero-vad package, which is not imported, stores its TorchScript model."""
    (package,) = find_spec("silero_vad").submodule_search_locations
    return Path(package, "data", "silero_vad.jit")


def _scripted_names() -> dict[str, str]:
    """Return the name of each parameter -> its name in the scripted model."""
    modules = {f"conv{i + 1}": f"encoder.{i}.reparam_conv" for i in range(4)} | {"final_conv": "decoder.decoder.2"}
    names = {f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in modules.items() for kind in ("weight", "bias")}
    lstm = {f"lstm.{kind}_l0": f"decoder.rnn.{kind}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    return {"stft_conv.weight": "stft.forward_basis_buffer", **names, **lstm}


def speech_stretches(probabilities: np.ndarray, samples: int) -> list[tuple[int, int]]:
    """Return where the probabilities show speech: (start, end) in samples, in order, disjoint, within the recording.

    A stretch begins with a chunk at ENTER or above and ends with the first chunk below LEAVE that no chunk at
    ENTER or above follows within SHORTEST_PAUSE. Stretches of at most SHORTEST_SPEECH are left out.
    """
    stretches = [(start, end) for start, end in _triggered(probabilities, samples) if end - start > SHORTEST_SPEECH]
    widened = []
    for i, (start, end) in enumerate(stretches):
        before = start - stretches[i - 1][1] if i else 2 * start
        after = stretches[i + 1][0] - end if i + 1 < len(stretches) else 2 * (samples - end)
        widened.append((start - min(MARGIN, before // 2), end + min(MARGIN, after // 2)))
    return widened


def _triggered(probabilities: np.ndarray, samples: int) -> list[tuple[int, int]]:
    """Return the stretches, short ones included and none widened."""
    stretches = []
    start = pause = None
    for position in np.flatnonzero((probabilities >= ENTER) | (probabilities < LEAVE)).tolist():
        sample = position * CHUNK_SAMPLES
        if probabilities[position] >= ENTER:
            start, pause = sample if start is None else start, None
        elif start is not None:
            pause = sample if pause is None else pause
            if sample - pause >= SHORTEST_PAUSE:
                stretches.append((start, pause))
                start = pause = None
    if start is not None:
        stretches.append((start, samples))
    return stretches
