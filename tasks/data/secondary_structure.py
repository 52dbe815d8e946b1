"""Secondary structure: helix, strand or coil for each residue of a protein."""
# L residues

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tasks.data.base import DataError, DataSet, Example, FileFact
from tasks.data.pinned import check_files, identity

CARD, FILE = "flip-secondary-structure", "splits.zip"
HEADERS = {
    "SET=train VALIDATION=False": "train",
    "SET=train VALIDATION=True": "valid",
    "SET=test VALIDATION=False": "test",
}


class SecondaryStructure(DataSet):
    """FLIP (Dallago et al. 2021) on data of NetSurfP-2.0 (Klausen et al. 2019): 9,712, 1,080 and 364 proteins.

    Source: residues, letters of amino acids as words. Target: H, E or C for each, None where it was not resolved.
    """

    modality = "protein"

    def __init__(self) -> None: ...

    def identity(self) -> list[FileFact]:
        """The one zip."""
        return identity(CARD)

    def check(self) -> None:
        """It is there, or is fetched, with the right checksum."""
        check_files(CARD)

    def read(self, split: str) -> Sequence[Example]:
        """Proteins in the order of the file of labels."""
        return _examples(check_files(CARD)[FILE])[split]


@cache
def _examples(path: Path) -> dict[str, list[Example]]:
    """All proteins by split. Raises DataError where the three files do not go together."""
    with zipfile.ZipFile(path) as archive:
        residues, labels, masks = (
            dict(_fasta(archive.read(f"splits/{name}.fasta").decode("ascii")))
            for name in ("sequences", "sampled", "mask")
        )
    found: dict[str, list[Example]] = {split: [] for split in HEADERS.values()}
    sequence_of = {header.split()[0]: text for header, text in residues.items()}
    mask_of = {header.split()[0]: text for header, text in masks.items()}
    for header, states in labels.items():
        name, _, rest = header.partition(" ")
        if rest not in HEADERS:
            raise DataError(f"{CARD}: {name} has the header {rest!r}; expected one of {', '.join(HEADERS)}")
        letters, resolved = sequence_of.get(name, ""), mask_of.get(name, "")
        if not len(letters) == len(states) == len(resolved) > 0:
            raise DataError(f"{CARD}: {name} has {len(letters)} residues, {len(states)} states, {len(resolved)} marks")
        target = [state if mark == "1" else None for state, mark in zip(states, resolved, strict=True)]
        found[HEADERS[rest]].append(Example(source=list(letters), target=target))
    return found


def _fasta(text: str) -> list[tuple[str, str]]:
    """(header, sequence) of each entry; sequences may go over lines."""
    entries = []
    for entry in text.split(">")[1:]:
        header, _, body = entry.partition("\n")
        entries.append((header.strip(), "".join(body.split())))
    return entries
