"""The revision of every stage: raise a number in the commit that changes what the stage writes."""

from __future__ import annotations

REVISIONS = {
    "data": 3,
    "corpus": 4,
    "finetune": 4,
    "merge": 3,
    "sensitivity": 3,
    "awq": 3,
    "calibrate": 3,
    "allocate": 1,
    "quantize": 4,
    "recover": 1,
    "segment": 4,
    "decode": 5,
    "loss": 4,
    "score": 6,
    "comet": 3,
}
