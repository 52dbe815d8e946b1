"""The contract for an encoder of your own, named as on the command line by the variable SEQBENCH_ENCODER.

    SEQBENCH_ENCODER="encoder=own encoder._target_=my_package.My +encoder.dim=16 allowed=[encoders,my_package]" \\
        python -m pytest tests/contract/test_own.py -vv --tb=short

Each check is a line with its name, for ids and for channels, whichever the class takes, or else for images.
`--config-dir DIR` may be first.
"""

from __future__ import annotations

import os
import shlex
from typing import Any, get_args

import pytest
from omegaconf import OmegaConf

from seqbench.composition.compose import compose, config_loader
from tests.contract.cases import Case, Check, Kind, cases_of
from tests.contract.decoder_checks import checks_of
from tests.contract.encoder_checks import keys_are_the_arguments

NAMED = os.environ.get("SEQBENCH_ENCODER", "")


def cases(named: str) -> list[Case]:
    """The encoder that a command line names, on the kinds of input that it takes."""
    words, folder = shlex.split(named), None
    if words[:1] == ["--config-dir"]:
        folder, words = words[1], words[2:]
    config = compose(config_loader(folder), words)
    node: dict[str, Any] = OmegaConf.to_container(config.encoder, resolve=True)  # type: ignore[assignment]
    taken = cases_of(node, tuple(config.allowed))
    if not taken:
        refusals = []
        for kind in get_args(Kind):
            try:
                Case(node, kind, tuple(config.allowed)).make()
            except ValueError as error:
                refusals.append(str(error))
        raise ValueError("\n".join(dict.fromkeys(refusals)))
    return taken


def parameters(named: str) -> list[Any]:
    """Kind of input x check."""
    if not named:
        return [pytest.param(None, None, marks=pytest.mark.skip(reason="set SEQBENCH_ENCODER to check an encoder"))]
    found = [(case, check) for case in cases(named) for check in checks_of(case)]
    return [pytest.param(case, check, id=f"{case.kind}-{check.__name__}") for case, check in found]


@pytest.mark.parametrize("case, check", parameters(NAMED))
def test_contract(case: Case, check: Check) -> None:
    check(case)


@pytest.mark.skipif(not NAMED, reason="set SEQBENCH_ENCODER to check an encoder")
def test_keys_are_the_arguments() -> None:
    case = cases(NAMED)[0]
    keys_are_the_arguments(case.node, case.allowed)


def test_a_class_that_ignores_the_mask_is_found_by_its_name() -> None:
    arguments = "encoder=own encoder._target_=tests.seqbench.own.{} +encoder.dim=8 +encoder.dropout=0.1 allowed=[tests]"
    for name, broken in (("Leaks", {"padding_changes_nothing", "causal_tells_the_truth"}), ("Whole", set())):
        [case] = cases(arguments.format(name))
        failed = set()
        for check in checks_of(case):
            try:
                check(case)
            except AssertionError:
                failed.add(check.__name__)
        assert failed == broken
