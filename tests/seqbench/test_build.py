"""Nodes become objects; a pair that can't be is refused in one line, before data and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from encoders.base import Decoder, Encoder, InputSpec, Sequences, States
from seqbench.build import PairError, build, build_encoder, build_task, check_pair, encoders_that, judge, locate
from seqbench.composition.compose import CONFIGS
from seqbench.composition.nodes import compose_node
from seqbench.errors import ConfigError
from tests.seqbench.toy import ToyEncoder, ToyTask
from tests.seqbench.toy_config import toy_config

ALLOWED = ["encoders", "tasks", "tests.seqbench.toy", __name__]
HERE = f"{__name__}."


class Part:
    def __init__(self, *, size: int) -> None:
        if size > 3:
            raise ValueError(f"size: {size} is more than 3")
        self.size = size


class Holder:
    def __init__(self, *, part: Part, many: list[Part], spec: InputSpec) -> None:
        self.part, self.many, self.spec = part, many, spec
        if part.size == 0:
            raise ValueError("nothing can be held")


class Two(ToyEncoder):
    """Reads a stream; merges two positions."""

    reads: ClassVar[frozenset[str]] = frozenset({"type"})
    requires: ClassVar[frozenset[str]] = frozenset({"type"})

    def num_states(self, length: int) -> int:
        return -(-length // 2)


SPEC = InputSpec(max_length=4, vocab_size=8)


def test_parts_are_built_inside_out_and_get_what_the_run_gives() -> None:
    part = {"_target_": HERE + "Part", "size": 2}
    built = build({"_target_": HERE + "Holder", "part": part, "many": [part, part]}, "x", ALLOWED, spec=SPEC)
    assert isinstance(built, Holder)
    assert [p.size for p in (built.part, *built.many)] == [2, 2, 2]
    assert built.spec is SPEC
    assert built.many[0] is not built.many[1]


def test_a_constructors_error_begins_with_the_key() -> None:
    good, bad = {"_target_": HERE + "Part", "size": 2}, {"_target_": HERE + "Part", "size": 4}
    node = {"_target_": HERE + "Holder", "part": good, "many": [good, bad]}
    with pytest.raises(ConfigError, match=r"^encoder\.many\.1\.size: 4 is more than 3$"):
        build(node, "encoder", ALLOWED, spec=SPEC)
    empty = {"_target_": HERE + "Part", "size": 0}
    with pytest.raises(ConfigError, match=r"^encoder: nothing can be held$"):
        build({**node, "part": empty, "many": []}, "encoder", ALLOWED, spec=SPEC)


@pytest.mark.parametrize(
    "target, expected",
    [
        ("os.system", "not in a package"),
        ("encoders.base.torch.load", "not in a package"),
        ("encoders.base.replace", "not in a package"),
        ("encoders.nowhere.X", "neither a class nor a function"),
        ("encoders.base.Nothing", "neither a class nor a function"),
        ("encoders.base.Encoder", "is abstract"),
    ],
)
def test_what_build_refuses_by_itself(target: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        locate(target, "encoder", ALLOWED)


def test_an_import_that_fails_inside_a_users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_own.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"users_own.X can't be imported: No module named 'a_package_that_is_not"):
        locate("users_own.X", "encoder", ["users_own"])


def test_kind_is_checked_on_the_object() -> None:
    config = toy_config(Path("r"))
    with pytest.raises(ConfigError, match=r"^encoder._target_: .* makes a ToyTask, not an encoders.base.Encoder"):
        build_encoder(config.model_copy(update={"encoder": config.task}), SPEC)


def test_a_pair_is_tried_without_memory_and_without_drawing_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Encoder] = []
    before = torch.get_rng_state()
    judged = "seqbench.build.judge"
    monkeypatch.setattr(judged, lambda encoder, *rest, **names: made.append(encoder))
    config = toy_config(Path("r"), {"encoder.dim": 10**7})  # 100 million million weights
    check_pair(config, build_task(config))
    assert {p.device.type for p in made[0].parameters()} == {"meta"}
    assert torch.equal(before, torch.get_rng_state())


def refusal(encoder: Encoder, task: Any, spec: InputSpec = SPEC) -> PairError:
    with pytest.raises(PairError) as caught:
        judge(encoder, task, spec, encoder_name="mine", task_name="theirs")
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def task_with(**facts: Any) -> ToyTask:
    config = toy_config(Path("r"))
    task = build_task(config)
    task.__class__ = type("Changed", (ToyTask,), facts)
    assert isinstance(task, ToyTask)
    return task


def test_pairs_that_cannot_be() -> None:
    encoder = ToyEncoder(dim=2, dropout=0.0, spec=SPEC)
    judge(encoder, task_with(), SPEC, encoder_name="mine", task_name="theirs")
    error = refusal(encoder, task_with(needs=Decoder))
    assert str(error).startswith("task theirs needs a Decoder; encoder mine is not one; decoders: bart, decoder_only")
    assert error.short == "needs a Decoder"
    encoder.causal = False
    assert "needs a causal encoder" in str(refusal(encoder, task_with(needs_causal=True)))
    two = Two(dim=2, dropout=0.0, spec=SPEC)
    fed = InputSpec(max_length=4, vocab_size=8, streams={"type": SPEC})
    assert "merges 4 positions into 2 states" in str(refusal(two, task_with(needs_all_positions=True), fed))
    assert "encoder mine needs stream type, which task theirs doesn't feed" in str(refusal(two, task_with()))
    assert "feeds stream type, which encoder mine doesn't read" in str(refusal(encoder, task_with(), fed))
    judge(two, task_with(), fed, encoder_name="mine", task_name="theirs")


def test_a_pair_is_refused_by_what_a_task_says_itself() -> None:
    def check_encoder(task: ToyTask, encoder: Encoder) -> None:
        raise ValueError(f"{encoder.dim} is odd")

    error = refusal(ToyEncoder(dim=3, dropout=0.0, spec=SPEC), task_with(check_encoder=check_encoder))
    assert (str(error), error.short) == ("mine x theirs: 3 is odd", "3 is odd")


def test_a_trivial_row_is_judged_by_its_rule_alone() -> None:
    from encoders.trivial import Trivial

    streams = InputSpec(max_length=4, vocab_size=8, streams={"type": SPEC})
    judge(Trivial(rule="majority", spec=SPEC), task_with(), streams, encoder_name="m", task_name="t")
    assert str(refusal(Trivial(rule="repeat_last", spec=SPEC), task_with())) == (
        "task theirs has no trivial rule repeat_last; it has majority"
    )


def test_the_recommended_decoders_are_decoders() -> None:
    """Found by reading sources; compared with Python's own issubclass."""
    import importlib

    names = encoders_that(Decoder)
    assert {"decoder_only", "encoder_decoder", "lstm"} <= set(names)
    for file in (CONFIGS / "encoder").glob("*.yaml"):
        target = compose_node("encoder", file.stem)["_target_"]
        if target == "???":
            assert file.stem not in names
            continue
        module, _, name = target.rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        is_decoder = isinstance(cls, type) and issubclass(cls, Decoder) and name != "Trivial"
        assert (file.stem in names) == is_decoder


def forward_is_not_called(self: Encoder, source: Sequences) -> States:
    raise AssertionError("judging runs nothing")


def test_judging_runs_no_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyEncoder, "forward", forward_is_not_called)
    config = toy_config(Path("r"))
    check_pair(config, build_task(config))
