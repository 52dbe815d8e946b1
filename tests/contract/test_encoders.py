"""Every file of configs/encoder meets the contract of encoders: a new file is tested with no new line here.

An encoder may refuse ids, channels or images, but only when it is built, by a ValueError; the cases are what is left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from encoders.base import Encoder
from seqbench.build import locate
from seqbench.composition.nodes import MISSING, compose_node, missing_keys
from seqbench.composition.schema import check
from tests.contract.cases import Case, Check, Kind, cases_of
from tests.contract.decoder_checks import checks_of
from tests.contract.encoder_checks import keys_are_the_arguments

FILES = sorted((Path(__file__).parents[2] / "configs" / "encoder").glob("*.yaml"))


def read(file: Path) -> tuple[dict[str, Any], list[pytest.MarkDecorator]]:
    """A config file, and a mark that skips it where it has a mandatory value (`???`) that only a user knows."""
    node = compose_node("encoder", file.stem)
    missing = missing_keys(node)
    return node, [pytest.mark.skip(reason=f"needs a value for {', '.join(missing)}")] if missing else []


NODES = {file.stem: read(file) for file in FILES}
CONFIGS = [pytest.param(node, id=name, marks=marks) for name, (node, marks) in NODES.items()]


def accepted() -> list[Any]:
    """Encoder x kind of input x check, without the kinds that an encoder refuses."""
    parameters = []
    for name, (node, marks) in NODES.items():
        if marks:
            parameters.append(pytest.param(None, None, id=name, marks=marks))
            continue
        for case in cases_of(node):
            for holds in checks_of(case):
                parameters.append(pytest.param(case, holds, id=f"{name}-{case.kind}-{holds.__name__}"))
    return parameters


# PyTorch tells once per process that RMSNorm of a bfloat16 input is not fused: slower, not wrong.
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")
@pytest.mark.parametrize("case, holds", accepted())
def test_contract(case: Case, holds: Check) -> None:
    holds(case)


@pytest.mark.parametrize(
    "node", [pytest.param(node, id=name) for name, (node, _) in NODES.items() if node["_target_"] != MISSING]
)
def test_config_keys_are_the_constructor_arguments(node: dict[str, Any]) -> None:
    keys_are_the_arguments(node)


@pytest.mark.parametrize("node", CONFIGS)
def test_config_passes_the_check_that_runs_before_any_import(node: dict[str, Any]) -> None:
    assert check(node, "encoder", ["encoders"], kind="encoders.base.Encoder", runtime=["spec"]) == node


@pytest.mark.parametrize("node", CONFIGS)
def test_an_encoder_takes_ids_channels_or_images_and_refuses_in_a_line(node: dict[str, Any]) -> None:
    refusals = []
    for kind in get_args(Kind):
        try:
            assert isinstance(Case(node, kind).make(), Encoder)
        except ValueError as error:
            refusals.append(str(error))
    assert len(refusals) < len(get_args(Kind)), refusals
    assert all(text and text.count("\n") < 2 for text in refusals)


@pytest.mark.parametrize("node", CONFIGS)
def test_an_encoder_is_final(node: dict[str, Any]) -> None:
    """A class that is instantiated has only abstract ones above it, down to Encoder."""
    target = locate(node["_target_"], "encoder", ["encoders"])
    above = [base for base in target.__mro__[1:] if issubclass(base, Encoder)]
    assert Encoder in above
    assert all(getattr(base, "__abstractmethods__", None) for base in above)
