"""Davis: how strongly a kinase inhibitor binds to a kinase, of its SMILES and the protein's residues."""
# N pairs

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.data.base import DataError, Example, Stream
from tasks.data.pinned_set import PinnedSet
from tasks.data.smiles import tokens
from tasks.data.unseen import Unseen, places

VALUES = "drug-target_interaction_affinities_Kd__Davis_et_al.2011v1.txt"
RESIDUES = 1000  # that are fed, as in DeepDTA; the longest protein has 2,549
SIDES: dict[str, Unseen] = {"molecules": "left", "proteins": "right", "both": "both"}


class Davis(PinnedSet):
    """30,056 pairs of 68 molecules and 442 proteins (Davis et al. 2011; form and folds of DeepDTA, Ozturk et al. 2018).

    `source`: tokens of a SMILES string. Stream `context`: the protein's residues, the first 1,000. `target`: pKd =
    9 - log10(Kd in nM), 5 to 10.8; 5, for 70 % of the pairs, says that no binding was seen.

    `unseen` in testing: `neither` is the published setting 1 (its test list, list `fold` of the other five for
    validation); molecules, proteins (by their sequence: 63 entries repeat one), or both, in five folds, see GDSC.
    """

    pinned: ClassVar[str] = "davis"
    modality = "molecules"
    streams: Mapping[str, Stream] = MappingProxyType({"context": Stream(length=RESIDUES)})

    def __init__(
        self,
        *,
        unseen: Literal["molecules", "proteins", "both", "neither"],
        fold: Annotated[int, Field(ge=0, le=4)],
    ) -> None:
        self.unseen, self.fold = unseen, fold
        if unseen == "neither":
            self.overlap = "in the published lists 63 of the 442 proteins repeat the sequence of another one"  # type: ignore[misc]

    def read(self, split: str) -> Sequence[Example]:
        """Pairs in the order of the lists, or of the matrix. Raises DataError for files that do not go together."""
        files = self.located()
        try:
            target_MP = 9 - np.log10(np.array(_lines(files[VALUES].read_text(encoding="utf-8"))))
            smiles = list(json.loads(files["ligands_can.txt"].read_text(encoding="utf-8")).values())
            proteins = list(json.loads(files["proteins.txt"].read_text(encoding="utf-8")).values())
            lists = json.loads(files["train_fold_setting1.txt"].read_text(encoding="utf-8"))
            test = json.loads(files["test_fold_setting1.txt"].read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"davis: {error}") from None
        if target_MP.shape != (len(smiles), len(proteins)):
            raise DataError(f"davis: {len(smiles)} molecules and {len(proteins)} proteins for {target_MP.shape} values")
        left_N, right_N = (side.ravel() for side in np.indices(target_MP.shape))
        rows: dict[str, NDArray[np.int64]]
        if self.unseen == "neither":
            others = [part for number, part in enumerate(lists) if number != self.fold]
            rows = {"train": np.concatenate(others), "valid": np.array(lists[self.fold]), "test": np.array(test)}
        else:
            left, right = [smiles[i] for i in left_N], [proteins[i] for i in right_N]
            rows = places(left, right, SIDES[self.unseen], self.fold)
        words, residues = [tokens(text) for text in smiles], _once(proteins)
        return [
            Example(
                source=words[left_N[row]],
                streams={"context": residues[right_N[row]]},
                target=float(target_MP[left_N[row], right_N[row]]),
            )
            for row in rows[split].tolist()
        ]


def _lines(text: str) -> list[list[float]]:
    return [[float(cell) for cell in line.split()] for line in text.splitlines()]


def _once(proteins: Sequence[str]) -> list[list[str]]:
    """Residues as words; of equal proteins one object."""
    known = {protein: list(protein) for protein in proteins}
    return [known[protein] for protein in proteins]
