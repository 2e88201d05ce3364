"""The revision of every stage: raise a number in the commit that changes what the stage writes."""

from __future__ import annotations

REVISIONS = {
    "data": 2,
    "corpus": 3,
    "finetune": 3,
    "merge": 3,
    "sensitivity": 2,
    "awq": 2,
    "calibrate": 1,
    "allocate": 1,
    "quantize": 3,
    "recover": 1,
    "segment": 3,
    "decode": 4,
    "loss": 3,
    "score": 6,
    "comet": 3,
}
