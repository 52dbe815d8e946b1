"""What the data of a column gives away."""

from __future__ import annotations

import os
from collections.abc import Sequence

from seqbench import leakage
from seqbench.board.model import Run
from seqbench.errors import RecordError


def leaks(runs: Sequence[Run], label: str) -> list[str]:
    """What the data of a column gives away: from the report beside its records, else what the runs counted."""
    told: dict[str, None] = {}
    distinct = {(os.path.dirname(run.folder), id(run.record.splits)): run for run in runs}.values()
    data = {(run.folder.parent, leakage.key_of(run.record.splits)): run.record.splits for run in distinct}
    for (results, _), splits in data.items():
        try:
            told |= dict.fromkeys(leakage.warnings_for(results, splits))
        except RecordError as error:
            told[str(error).replace(f"{results}/", "")] = None  # a board shows no path of the machine that made it
    return [f"{label}: {text}" for text in told]
