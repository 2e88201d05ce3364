"""Names of the files that a command prints from an artifact: here, so that a cached one is shown without torch."""

from __future__ import annotations

AWQ_REPORT = "awq_report.json"
MOMENTS = "moments.json"
PACKING_REPORT = "packing_report.json"
RECOVERY_REPORT = "recovery_report.json"
