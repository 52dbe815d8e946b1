"""GDSC: how sensitive a cancer cell line is to a compound, of its SMILES and the line's methylation."""
# N pairs, G promoters, K lines

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.data.base import DataError, Example, Stream
from tasks.data.pinned_set import PinnedSet
from tasks.data.smiles import tokens
from tasks.data.unseen import Unseen, places

GENES = 808
SIDES: dict[str, Unseen] = {"neither": "neither", "molecules": "left", "lines": "right", "both": "both"}


class Table(NamedTuple):
    """All pairs that are measured, as indices."""

    smiles: list[str]  # of each pair; one compound may stand under two ids
    line_N: NDArray[np.int64]
    target_N: NDArray[np.float64]  # ln IC50, IC50 in micromolar
    lines: list[str]
    profile_KG: NDArray[np.float64]  # share of methylated promoters, 0 to 1


class GDSC(PinnedSet):
    """107,446 pairs of 223 molecules and 561 cell lines (GDSC, as DeepCDR collected it; Liu et al. 2020).

    `source`: tokens of a SMILES string. Stream `context`: one position of 808 methylation features of the line,
    standardised by the lines of training (the expression that PaccMann reads is not here). `target`: ln IC50.

    `unseen` in testing: molecules (by SMILES, not by id: some stand under two), cell lines, both, or neither, where
    pairs are parted at random. `fold` 0 to 4; 7 tenths train, one is for validation, two for the test; of both, pairs
    of one that is seen and one that is not are left out. `profile=shuffled` gives each line that of another one, always
    the same: a control of whether it is used.
    """

    pinned: ClassVar[str] = "gdsc-deepcdr"
    modality = "molecules"
    streams: Mapping[str, Stream] = MappingProxyType({"context": Stream(channels=GENES, length=1)})

    def __init__(
        self,
        *,
        unseen: Literal["molecules", "lines", "both", "neither"],
        fold: Annotated[int, Field(ge=0, le=4)],
        profile: Literal["own", "shuffled"],
    ) -> None:
        self.unseen, self.fold, self.profile = unseen, fold, profile

    def read(self, split: str) -> Sequence[Example]:
        """Pairs in order of the file's rows, then its lines. Raises DataError for files that do not go together."""
        files = self.located()
        table = read_table(
            files["GDSC_IC50.csv"],
            files["drug_list.csv"],
            files["223drugs_pubchem_smiles.txt"],
            files["methylation_561x808.csv"],
        )
        names = [table.lines[line] for line in table.line_N]
        rows = places(table.smiles, names, SIDES[self.unseen], self.fold)
        given_KG = table.profile_KG
        if self.profile == "shuffled":
            given_KG = given_KG[others(len(given_KG))]
        seen_KG = given_KG[np.unique(table.line_N[rows["train"]])]
        spread_G = seen_KG.std(axis=0)
        scaled_KG = (given_KG - seen_KG.mean(axis=0)) / np.where(spread_G > 0, spread_G, 1.0)
        contexts = [row_G[None].astype(np.float32) for row_G in scaled_KG]
        words = {smiles: tokens(smiles) for smiles in sorted(set(table.smiles))}
        return [
            Example(
                source=words[table.smiles[row]],
                streams={"context": contexts[table.line_N[row]]},
                target=float(table.target_N[row]),
            )
            for row in rows[split].tolist()
        ]


def others(number: int) -> NDArray[np.int64]:
    """For each of so many another one, each once, always the same."""
    order = np.random.default_rng(0).permutation(number)
    found = np.empty(number, dtype=np.int64)
    found[order] = np.roll(order, 1)
    return found


@cache
def read_table(values: Path, drugs: Path, molecules: Path, profiles: Path) -> Table:
    """The pairs of drugs with a SMILES string and lines with a profile. Raises DataError for what can't be read."""
    try:
        pubchem = {row[0]: row[5] for row in _rows(drugs)[1:] if row[5].isdecimal()}
        smiles_of = dict(line.split("\t") for line in molecules.read_text(encoding="utf-8").splitlines())
        features = _rows(profiles)
        lines = [row[0] for row in features[1:]]
        profile_KG = np.array([row[1:] for row in features[1:]], dtype=np.float64)
        header, *cells = _rows(values)
        columns = [(i, lines.index(name)) for i, name in enumerate(header) if name in set(lines)]
        smiles, line, target = [], [], []
        for row in cells:
            found = smiles_of.get(pubchem.get(row[0].removeprefix("GDSC:"), ""))
            for i, number in columns if found is not None else []:
                if row[i] != "NA":
                    smiles.append(found or "")
                    line.append(number)
                    target.append(float(row[i]))
    except (ValueError, IndexError) as error:
        raise DataError(f"gdsc-deepcdr: {error}") from None
    if profile_KG.shape[1:] != (GENES,) or not np.isfinite(profile_KG).all():
        raise DataError(f"gdsc-deepcdr: {profiles.name}: expected {GENES} finite numbers for each line")
    return Table(smiles, np.array(line, dtype=np.int64), np.array(target), lines, profile_KG)


def _rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))
