"""SMILES strings as tokens: atoms, bonds, branches and rings."""

from __future__ import annotations

import re

from tasks.data.base import DataError

# Schwaller et al. 2018 (arXiv 1711.04810), the pattern that PaccMann uses, too
PATTERN = re.compile(
    r"\[[^\]]+\]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|/|:|~|@|\?|>|\*|\$|%[0-9]{2}|[0-9]"
)


def tokens(smiles: str) -> list[str]:
    """The tokens, which joined are the string again. Raises DataError where they would not be."""
    found = PATTERN.findall(smiles)
    if "".join(found) != smiles or not found:
        raise DataError(f"{smiles[:60]!r} is no SMILES string")
    return found
