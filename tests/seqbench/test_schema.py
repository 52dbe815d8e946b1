"""Nodes against signatures: every mistake is found without importing the target, and no target slips through."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seqbench.composition.nodes import compose_node
from seqbench.composition.schema import check, is_allowed
from seqbench.composition.signature import forget, read_signature
from seqbench.errors import ConfigError
from tests.arguments import arguments_of

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = ["encoders", "tasks", "torch.optim", "tests.seqbench.toy"]
TOY = "tests.seqbench.toy."

MINE = """
from __future__ import annotations
import dataclasses
from typing import Annotated, Literal, Optional, Sequence, TypedDict, Unpack
from pydantic import Field
from mine.parts import Part, Size, make
from mine import parts as others

class Base:
    def __init__(self, *, size: Size, name: "str | None", **rest: int) -> None: ...

class Inherits(Base):
    pass

@dataclasses.dataclass(kw_only=True)
class Options:
    rate: Annotated[float, Field(ge=0, le=1)]
    kind: Literal["a", "b", 3] = "a"

class Holds:
    def __init__(self, *, part: Part, many: list[Part], maybe: Optional[others.Part], table: dict[str, Part],
                 either: int | Literal["auto"], pair: tuple[int, float], some: Sequence[str]) -> None: ...

Made = make()

def function(*, dim: int, spec: InputSpec) -> Base: ...

class Shared(TypedDict):
    dim: Annotated[int, Field(gt=0)]
    part: others.Part

class Takes:
    def __init__(self, *, name: str, spec: InputSpec, **shared: Unpack[Shared]) -> None: ...

class WithMethod:
    @classmethod
    def small(cls, *, dim: int) -> "WithMethod": ...
"""
PARTS = """
from typing import Annotated
from pydantic import Field
LARGEST = 9
Size = Annotated[int, Field(gt=0, le=LARGEST)]

class Part:
    def __init__(self, *, dim: int): ...

class Other:
    def __init__(self, *, dim: int): ...

class Special(Part):
    pass

def make():
    class Inner:
        def __init__(self, *, width: int): ...
    Inner.__module__, Inner.__qualname__ = "mine.classes", "Made"
    return Inner
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """A user's package; the prefixes that allow it."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "mine").mkdir()
    (folder / "mine" / "__init__.py").write_text("from mine.parts import Part as Exported\nfrom os import system\n")
    (folder / "mine" / "classes.py").write_text(MINE)
    (folder / "mine" / "parts.py").write_text(PARTS)
    (folder / "mine" / "broken.py").write_text("class Broken(:\n")
    sys.path.append(str(folder))
    forget()
    yield ["mine", "torch.optim"]
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]


def message(node: Any, allowed: list[str], **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        check(node, "encoder", allowed, **options)
    assert len(str(caught.value).splitlines()) <= 3
    return str(caught.value)


def test_values_come_back_in_their_final_type() -> None:
    node = check({"_target_": TOY + "ToyEncoder", "dim": 4, "dropout": 0}, "encoder", ALLOWED)
    assert node == {"_target_": TOY + "ToyEncoder", "dim": 4, "dropout": 0.0}
    assert type(node["dropout"]) is float


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"dim": "abc"}, "encoder.dim: 'abc' is not a whole number"),
        ({"dim": "4"}, "encoder.dim: '4' is not a whole number"),
        ({"dim": True}, "encoder.dim: true is not a whole number"),
        ({"dim": 1.5}, "encoder.dim: 1.5 is not a whole number"),
        ({"dim": 64.0}, "encoder.dim: 64.0 is not a whole number; write 64"),
        ({"dim": None}, "encoder.dim: null is not a whole number"),
        ({"dim": 0}, "encoder.dim: 0 is not allowed; should be greater than 0"),
        ({"dropout": 1}, "encoder.dropout: 1 is not allowed; should be less than 1"),
        ({"dropout": False}, "encoder.dropout: false is not a number"),
        ({"dropout": float("nan")}, "encoder.dropout: nan is not a finite number"),
        ({"dmi": 4}, "encoder.dmi: no such key (did you mean dim?)"),
        ({"spec": 4}, "encoder.spec: no such key; there is dim, dropout"),
        ({"_partial_": True}, "encoder._partial_: not allowed"),
        ({"_args_": [1]}, "encoder._args_: not allowed"),
        ({"_convert_": "all"}, "encoder._convert_: not allowed"),
        ({"_recursive_": False}, "encoder._recursive_: not allowed"),
    ],
)
def test_wrong_values_are_named(changes: dict[str, Any], expected: str) -> None:
    node = {"_target_": TOY + "ToyEncoder", "dim": 4, "dropout": 0.1, **changes}
    assert message(node, ALLOWED).startswith(expected)


def test_keys_of_a_typed_dict_are_arguments(mine: list[str]) -> None:
    node = {"_target_": "mine.classes.Takes", "name": "x", "dim": 1, "part": {"_target_": "mine.parts.Part", "dim": 2}}
    assert check(node, "encoder", mine)["dim"] == 1
    assert "encoder.dim: 0" in message({**node, "dim": 0}, mine)
    assert "encoder.part.dim" in message({**node, "part": {"_target_": "mine.parts.Part", "dim": "x"}}, mine)
    assert message({key: value for key, value in node.items() if key != "dim"}, mine) == "encoder.dim: missing"
    assert "encoder.dimm: no such key" in message({**node, "dimm": 3}, mine)


def test_missing_and_choices_are_named() -> None:
    assert message({"_target_": TOY + "ToyEncoder", "dim": 4}, ALLOWED) == "encoder.dropout: missing"
    broken = {"_target_": TOY + "BrokenEncoder", "dim": 4, "dropout": 0.1, "how": "nam", "at": 1}
    assert message(broken, ALLOWED) == (
        "encoder.how: 'nam' is not one of nan, oom, error, kill, interrupt, weights, explode, spikes, sleep, memory,"
        " exit (did you mean nan?)"
    )


def test_many_mistakes_make_three_lines() -> None:
    node = {"_target_": TOY + "ToyEncoder", "a": 1, "b": 2, "c": 3}
    assert message(node, ALLOWED).splitlines()[2] == "and 3 more mistakes"


@pytest.mark.parametrize(
    "target, expected",
    [
        ("os.system", "is not in a package that configs may use"),
        ("encodersevil.x", "is not in a package that configs may use"),
        ("encoders.base.replace", "dataclasses.replace is not in a package"),  # imported there, defined elsewhere
        ("encoders.base.torch.load", "torch.load is not in a package"),
        ("encoders.base.nn.Linear", "torch.nn.Linear is not in a package"),
        ("encoders.base.Tensor", "torch._tensor.Tensor is not in a package"),
        ("encoders.bse.Encoder", "there is no module encoders.bse (did you mean encoders.base?)"),
        (TOY + "ToyEncodr", "has no ToyEncodr (did you mean tests.seqbench.toy.ToyEncoder?)"),
        ("torch.optim.AdmW", "has no AdmW (did you mean torch.optim.AdamW?)"),
        ("encoders", "encoders is not a dotted name"),
        ("encoders..base", "is not a dotted name"),
        (TOY + "VOCABULARY", "is neither a class nor a function"),
    ],
)
def test_targets_that_lead_elsewhere(target: str, expected: str) -> None:
    text = message({"_target_": target}, ALLOWED)
    assert text.startswith("encoder._target_: ")
    assert expected in text


def test_allowed_ends_at_a_package() -> None:
    assert is_allowed("encoders.x", ["encoders"])
    assert is_allowed("encoders", ["encoders"])
    assert not is_allowed("encodersevil.x", ["encoders"])
    assert not is_allowed("encoder.x", ["encoders"])
    assert "allowed=[encoders,mine]" in message({"_target_": "mine.X"}, ["encoders"])


@pytest.mark.parametrize("node", [3, "encoder_only", None, {}, {"dim": 3}, {"_target_": 3}, []])
def test_what_is_no_node(node: Any) -> None:
    assert "it needs a _target_" in message(node, ALLOWED)


def test_kind_is_read_from_the_ancestors() -> None:
    node = {"_target_": "torch.optim.AdamW", "lr": 1e-3}
    assert message(node, ALLOWED, kind="encoders.base.Encoder") == (
        "encoder._target_: torch.optim.AdamW is not an Encoder"
    )
    check(node, "optimizer", ALLOWED, kind="torch.optim.optimizer.Optimizer", runtime=("params",))
    check(
        {"_target_": TOY + "BrokenEncoder", "dim": 4, "dropout": 0.1, "how": "nan", "at": 1},
        "encoder",
        ALLOWED,
        kind="encoders.base.Encoder",
    )


def test_optimizer_is_read_without_its_parameters() -> None:
    node = {"_target_": "torch.optim.AdamW", "lr": 1, "betas": [0.9, 0.98]}
    checked = check(node, "optimizer", ALLOWED, runtime=("params",))
    assert checked["lr"] == 1.0
    assert checked["betas"] == [0.9, 0.98]
    assert "lr: 'high' is not a number" in message({**node, "lr": "high"}, ALLOWED, runtime=("params",))
    assert "betas.1: missing" in message({**node, "betas": [0.9]}, ALLOWED, runtime=("params",))
    assert "params: no such key" in message({**node, "params": 1}, ALLOWED, runtime=("params",))


def test_nested_nodes_are_checked_where_they_stand() -> None:
    task = {
        "_target_": TOY + "ToyTask",
        "max_length": 3,
        "metrics": [{"_target_": TOY + "Hits"}, {"_target_": TOY + "Misses", "x": 1}],
        "data": {"_target_": TOY + "ToyData", "rows": 0, "seed": 1},
    }
    assert message(task, ALLOWED).splitlines() == [
        "encoder.data.rows: 0 is not allowed; should be greater than 0",
        "encoder.metrics.1.x: no such key",
    ]
    swapped = {**task, "data": {"_target_": TOY + "Hits"}, "metrics": []}
    assert message(swapped, ALLOWED) == f"encoder.data._target_: {TOY}Hits is not a DataSet"
    assert "is not a part; it takes a DataSet" in message({**swapped, "data": "digits"}, ALLOWED)


def test_every_kind_of_annotation(mine: list[str]) -> None:
    part = {"_target_": "mine.parts.Special", "dim": 1}
    node = {
        "_target_": "mine.classes.Holds",
        "part": part,
        "many": [part, {"_target_": "mine.Exported", "dim": 2}],
        "maybe": None,
        "table": {"x": part},
        "either": "auto",
        "pair": [1, 2],
        "some": ["a"],
    }
    assert check(node, "encoder", mine) == {**node, "pair": [1, 2.0]}
    for key, value, expected in [
        ("either", "many", "encoder.either: 'many' is not a whole number nor one of auto"),
        ("pair", [1], "encoder.pair.1: missing"),
        ("some", "a", "encoder.some: 'a' is not a list"),
        ("many", [3], "encoder.many.0: 3 is not a part; it takes a Part"),
        ("maybe", 3, "encoder.maybe: 3 is not a part"),
        ("part", {"_target_": "mine.parts.Other", "dim": 1}, "encoder.part._target_: mine.parts.Other is not a Part"),
        ("table", {"x": {"_target_": "mine.parts.Part"}}, "encoder.table.x.dim: missing"),
    ]:
        assert message({**node, key: value}, mine).startswith(expected)


def test_inherited_aliased_and_open(mine: list[str]) -> None:
    node = {"_target_": "mine.classes.Inherits", "size": 9, "name": None, "anything": 3}
    assert check(node, "encoder", mine) == node
    assert "should be less than or equal to 9" in message({**node, "size": 10}, mine)  # a constant of another module
    assert "name: 3 is not a text" in message({**node, "name": 3}, mine)


def test_dataclass_function_and_method(mine: list[str]) -> None:
    assert check({"_target_": "mine.classes.Options", "rate": 1}, "encoder", mine)["rate"] == 1.0
    assert "kind: 'c' is not one of a, b, 3" in message(
        {"_target_": "mine.classes.Options", "rate": 0, "kind": "c"}, mine
    )
    assert read_signature("mine.classes.function").required == {"dim"}  # the spec is given by the run
    check({"_target_": "mine.classes.WithMethod.small", "dim": 3}, "encoder", mine)
    assert "dim: missing" in message({"_target_": "mine.classes.WithMethod.small"}, mine)


def test_a_class_that_only_an_import_shows(mine: list[str]) -> None:
    assert check({"_target_": "mine.classes.Made", "width": 3}, "encoder", mine)["width"] == 3
    assert "width: 'x' is not a whole number" in message({"_target_": "mine.classes.Made", "width": "x"}, mine)


def test_a_source_with_a_syntax_error(mine: list[str]) -> None:
    text = message({"_target_": "mine.broken.Broken"}, mine)
    assert "is not valid Python" in text
    assert len(text.splitlines()) == 1


def test_reexports_count_by_where_they_are_defined(mine: list[str]) -> None:
    assert "os.system is not in a package" in message({"_target_": "mine.system"}, mine)


def test_static_reading_agrees_with_python() -> None:
    """Every target of configs/encoder: the names and which of them are required, as `inspect` sees them."""
    import importlib

    targets = {compose_node("encoder", f.stem)["_target_"] for f in (ROOT / "configs" / "encoder").glob("*.yaml")}
    targets |= {"torch.optim.AdamW", "torch.optim.SGD"}
    targets -= {"???"}
    assert len(targets) > 5
    for target in targets:
        module, _, name = target.rpartition(".")
        parameters = arguments_of(getattr(importlib.import_module(module), name))
        signature = read_signature(target)
        assert set(signature.hints) == set(parameters) - {"spec"}
        needed = {p.name for p in parameters.values() if p.default is p.empty} - {"spec"}
        assert signature.required == needed


def test_nothing_is_imported() -> None:
    code = (
        "import sys; from seqbench.composition.schema import check;"
        "node = {'_target_': 'encoders.recurrent.Recurrent', 'cell': 'lstm', 'dim': 8, 'depth': 1, 'dropout': 0.0};"
        "check(node, 'encoder', ['encoders']);"
        "check({'_target_': 'torch.optim.AdamW', 'lr': 1}, 'o', ['torch.optim'], runtime=('params',));"
        "loaded = {'torch', 'numpy', 'encoders.recurrent'} & set(sys.modules); sys.exit(str(loaded) if loaded else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
