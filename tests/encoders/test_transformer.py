"""What Transformers share: a mistake in Python is told as Python tells one, though keywords are taken together."""

from __future__ import annotations

from typing import Any

import pytest

from encoders.base import InputSpec
from encoders.encoder_only import EncoderOnly
from seqbench.build import build
from seqbench.composition.nodes import compose_node

SPEC = InputSpec(max_length=4, vocab_size=9)


@pytest.fixture
def arguments() -> dict[str, Any]:
    """Those of a made encoder, parts built."""
    node = {**compose_node("encoder", "encoder_only"), "dim": 8, "heads": 2, "depth": 1, "hidden": 8}
    parts = {key: value for key, value in node.items() if isinstance(value, dict)}
    built = {key: build(value, key, ["encoders"]) for key, value in parts.items()}
    return {key: value for key, value in {**node, **built}.items() if key != "_target_"}


def test_all_of_them_make_it(arguments: dict[str, Any]) -> None:
    assert EncoderOnly(**arguments, spec=SPEC).dim == 8


def test_one_that_is_missing_or_unknown_is_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="dept is no argument; a Transformer takes dim, depth, heads"):
        EncoderOnly(**arguments, dept=2, spec=SPEC)
    heads = arguments.pop("heads")
    with pytest.raises(TypeError, match="heads is missing"):
        EncoderOnly(**arguments, spec=SPEC)
    assert heads == 2
