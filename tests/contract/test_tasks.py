"""Every file of configs/task meets the contract of tasks: a new file is tested with no new line here.

Tasks whose data have an address are skipped where they are not at hand; files that a user completes (own data), always.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seqbench.nodes import compose_node, missing_keys
from tasks.base import Task
from tests.contract.leak_checks import LEAK_CHECKS
from tests.contract.task_cases import CONFIGS, TaskCase, TaskCheck, data_at
from tests.contract.task_checks import CONFIG_CHECKS, DATA_CHECKS, KINDS, QUICK_CHECKS, TRAINING_CHECKS


def read(file: Path) -> tuple[dict[str, Any], list[str]]:
    """A config file with its defaults, and the keys that wait for a value (`???`)."""
    node = compose_node("task", file.stem)
    return node, missing_keys(node)


READ = {file.stem: read(file) for file in sorted((CONFIGS / "task").glob("*.yaml"))}
CASES = {name: TaskCase(name, node) for name, (node, missing) in READ.items() if not missing}


def parameters(checks: list[TaskCheck], cases: dict[str, TaskCase] = CASES) -> list[Any]:
    """Cases x checks that are for their kind; a file that waits for a value is one skipped parameter."""
    found = []
    for name, (_, missing) in READ.items():
        if missing:
            reason = f"needs a value for {', '.join(missing)}"
            found.append(pytest.param(None, None, id=name, marks=pytest.mark.skip(reason=reason)))
    for name, case in cases.items():
        marks = [pytest.mark.data] if case.pinned else []
        fit = [check for check in checks if isinstance(case.whole, KINDS.get(check, Task))]
        found += [pytest.param(case, check, id=f"{name}-{check.__name__}", marks=marks) for check in fit]
    return found


@pytest.fixture(autouse=True)
def _data(request: pytest.FixtureRequest) -> Iterator[None]:
    pinned = request.node.get_closest_marker("data") is not None
    with data_at(request.getfixturevalue("data_cache") if pinned else None):
        yield


@pytest.mark.parametrize("case, check", parameters(CONFIG_CHECKS))
def test_config(case: TaskCase, check: TaskCheck) -> None:
    check(case)


@pytest.mark.parametrize("case, check", parameters([*QUICK_CHECKS, *LEAK_CHECKS]))
def test_contract(case: TaskCase, check: TaskCheck) -> None:
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("case, check", parameters(DATA_CHECKS))
def test_data(case: TaskCase, check: TaskCheck) -> None:
    check(case)


def one_a_kind_and_data_set() -> dict[str, TaskCase]:
    """The first of the tasks that differ in numbers alone: lengths, horizons, splits of one data set."""
    found: dict[tuple[type, type], TaskCase] = {}
    for case in CASES.values():
        found.setdefault((type(case.whole), type(case.whole.data)), case)
    return {case.name: case for case in found.values()}


@pytest.mark.slow
@pytest.mark.parametrize("case, check", parameters(TRAINING_CHECKS, one_a_kind_and_data_set()))
def test_training(case: TaskCase, check: TaskCheck) -> None:
    check(case)
