"""Every file of configs/task meets the contract of tasks: a new file is tested with no new line here.

Tasks whose data have an address are skipped where they are not at hand; files that a user completes (own data), always.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seqbench.composition.nodes import compose_node, missing_keys
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


def one_a_kind_and_data_set() -> set[str]:
    """The first of the tasks that differ in numbers alone: lengths, horizons, splits of one data set."""
    found: dict[tuple[type, type], str] = {}
    for case in CASES.values():
        found.setdefault((type(case.whole), type(case.whole.data)), case.name)
    return set(found.values())


def parameters() -> list[Any]:
    """Cases x checks that are for their kind; a file that waits for a value is one skipped parameter.

    Checks of one case follow each other, so that its data are read once for them, and let go of after the last.
    """
    found = []
    for name, (_, missing) in READ.items():
        if missing:
            reason = f"needs a value for {', '.join(missing)}"
            found.append(pytest.param(None, None, id=name, marks=pytest.mark.skip(reason=reason)))
    trained = one_a_kind_and_data_set()
    for name, case in CASES.items():
        slow = [*DATA_CHECKS, *(TRAINING_CHECKS if name in trained else [])]
        for check in [*CONFIG_CHECKS, *slow, *QUICK_CHECKS, *LEAK_CHECKS]:
            if isinstance(case.whole, KINDS.get(check, Task)):
                marks = [pytest.mark.data] if case.pinned else []
                marks += [pytest.mark.slow] if check in slow else []
                found.append(pytest.param(case, check, id=f"{name}-{check.__name__}", marks=marks))
    return found


LAST: list[TaskCase] = []  # the one that was checked last


@pytest.fixture(autouse=True)
def _data(request: pytest.FixtureRequest) -> Iterator[None]:
    case = request.node.callspec.params["case"]
    if case not in LAST[-1:]:
        if LAST:
            LAST.pop().forget()
        LAST.append(case)
    pinned = request.node.get_closest_marker("data") is not None
    with data_at(request.getfixturevalue("data_cache") if pinned else None):
        yield


@pytest.mark.parametrize("case, check", parameters())
def test_contract(case: TaskCase, check: TaskCheck) -> None:
    check(case)
