"""The segmentation methods by the name that recipes use: the only list of them.

shas        the SHAS classifier and probabilistic divide-and-conquer: the paper's system
shas+vad    the same, then segments extended or added wherever the voice-activity detector finds speech outside them
vad         divide-and-conquer over the detector's probabilities
fixed       equal lengths, whatever the probabilities
"""

from __future__ import annotations

from segment.methods.divide_and_conquer import segment_by_classifier, segment_by_vad
from segment.methods.fixed import segment_by_length
from segment.methods.gap_filling import segment_and_fill_gaps
from segment.methods.method import Method

METHODS: dict[str, Method] = {
    "shas": segment_by_classifier,
    "shas+vad": segment_and_fill_gaps,
    "vad": segment_by_vad,
    "fixed": segment_by_length,
}
CLASSIFYING = ("shas", "shas+vad")
"""Methods that need the classifier's probabilities."""
