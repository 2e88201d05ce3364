"""Batching as in the published code, for comparisons with it: `original_batching = true` in a recipe.

It fills batches with a recording's windows in order, pads the rows of a batch to its longest, and normalises each
row with its padding. So the probabilities of a recording's last, shorter window depend on what shares its batch,
and results on the batch size. The default (`Classifier.probabilities`) pads nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

from segment.classifier.model import Classifier, normalise
from segment.probabilities.windows import (
    AudioSource,
    Window,
    checked_finite,
    frame_at,
    mean_probabilities,
    plan_windows,
    shifts,
)
from submission.text.segments import SAMPLE_RATE


def original_probabilities(
    sources: Iterable[AudioSource],
    classifier: Callable[[], Classifier],
    *,
    inference_times: int = 1,
    batch_size: int = 14,
    tick: Callable[[float], None] = lambda seconds: None,
) -> list[np.ndarray]:
    """Return frame probabilities as `windows.frame_probabilities` does, batched as the published code batches."""
    results = []
    for source in sources:
        passes = []
        for shift in shifts(source.samples, inference_times):
            probabilities = np.full(frame_at(source.samples), np.nan)
            plan = plan_windows(source.samples, shift)
            for i in range(0, len(plan), batch_size):
                batch = plan[i : i + batch_size]
                _predict(classifier(), source, batch, probabilities)
                tick(sum(w.end - w.start for w in batch) / SAMPLE_RATE / inference_times)
            passes.append(probabilities)
        results.append(mean_probabilities(passes))
    return results


@torch.inference_mode()
def _predict(classifier: Classifier, source: AudioSource, batch: Sequence[Window], probabilities: np.ndarray) -> None:
    """Write the probabilities of a batch of windows into those of a recording, [frames].

    A window of zeros is silence (0). The head attends to as many frames of a row as its window has in the recording.
    Where the encoder makes fewer frames than the longest row has there, every row of the batch loses its last frame.
    """
    device = next(classifier.parameters()).device
    audio = [torch.from_numpy(source.read(w.start, w.end)) for w in batch]
    lengths = torch.tensor([len(samples) for samples in audio])
    longest = max(int(lengths.max()), classifier.shortest_samples)
    rows = torch.stack([torch.nn.functional.pad(samples, (0, longest - len(samples))) for samples in audio])
    silent = rows.sum(dim=1) == 0
    rows = torch.where(silent[:, None], rows, normalise(rows)).to(device)
    frames = torch.tensor([w.last_frame - w.first_frame for w in batch])
    encoded = int(classifier.frames(longest))
    attended = frames.clamp(min=1, max=encoded)
    predicted = torch.sigmoid(classifier(rows, lengths.to(device), attended.to(device))).float().cpu().numpy()
    written = frames - 1 if encoded < int(frames.max()) else frames
    for window, values, count, is_silent in zip(batch, predicted, written.tolist(), silent.tolist(), strict=True):
        slots = probabilities[window.first_frame : window.last_frame]
        if is_silent:
            slots[:] = 0.0
        else:
            count = min(count, len(slots), len(values))
            slots[:count] = checked_finite(values[:count])
