"""The published code's way of batching, for comparisons with it: `original_batching = true` in a recipe.

It fills batches with a recording's windows in order, pads the rows of a batch to its longest, and normalises each
row with its padding. So the probabilities of a recording's last, shorter window depend on what shares its batch,
and results on the batch size. The house's own way (`Classifier.probabilities`) pads nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

from segment.classifier.model import Classifier, normalise
from segment.probabilities.windows import Source, Window, checked_finite, frame_at, mean_track, plan_windows, shifts
from submission.text.segments import SAMPLE_RATE


def original_tracks(
    sources: Iterable[Source],
    classifier: Callable[[], Classifier],
    *,
    inference_times: int = 1,
    batch_size: int = 14,
    tick: Callable[[float], None] = lambda seconds: None,
) -> list[np.ndarray]:
    """Return probability tracks as `windows.probability_tracks` does, batched as the published code batches."""
    tracks = []
    for source in sources:
        passes = []
        for shift in shifts(source.samples, inference_times):
            track = np.full(frame_at(source.samples), np.nan)
            plan = plan_windows(source.samples, shift)
            for i in range(0, len(plan), batch_size):
                batch = plan[i : i + batch_size]
                _predict(classifier(), source, batch, track)
                tick(sum(w.end - w.start for w in batch) / SAMPLE_RATE / inference_times)
            passes.append(track)
        tracks.append(mean_track(passes))
    return tracks


@torch.inference_mode()
def _predict(classifier: Classifier, source: Source, batch: Sequence[Window], track: np.ndarray) -> None:
    """Lay the probabilities of a batch of windows down on a track.

    A window of zeros is silence (0). The head listens to as many frames of a row as the track has room for. Where
    the encoder made fewer frames than the longest row has room for, every row of the batch loses its last frame.
    """
    device = next(classifier.parameters()).device
    audio = [torch.from_numpy(source.read(w.start, w.end)) for w in batch]
    lengths = torch.tensor([len(samples) for samples in audio])
    longest = max(int(lengths.max()), classifier.shortest_samples)
    rows = torch.stack([torch.nn.functional.pad(samples, (0, longest - len(samples))) for samples in audio])
    silent = rows.sum(dim=1) == 0
    rows = torch.where(silent[:, None], rows, normalise(rows)).to(device)
    frames = torch.tensor([w.last_frame - w.first_frame for w in batch])
    made = int(classifier.frames(longest))
    attended = frames.clamp(min=1, max=made)
    probabilities = torch.sigmoid(classifier(rows, lengths.to(device), attended.to(device))).float().cpu().numpy()
    laid = frames - 1 if made < int(frames.max()) else frames
    for window, values, count, is_silent in zip(batch, probabilities, laid.tolist(), silent.tolist(), strict=True):
        room = track[window.first_frame : window.last_frame]
        if is_silent:
            room[:] = 0.0
        else:
            count = min(count, len(room), len(values))
            room[:count] = checked_finite(values[:count])
