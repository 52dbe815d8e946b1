"""A batch in advance, as on CUDA: the same batches, checkpoints and bits as without. Forced here, on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from encoders.base import Sequences
from seqbench.run import run
from seqbench.training import transfer
from seqbench.training.feed import Feed
from seqbench.training.health import TimedOut
from seqbench.training.resume import Checkpoints
from seqbench.training.transfer import Carrier
from tasks.base import Batch
from tasks.loading import Batching, Loader, Share
from tests.runs.test_run import same_result
from tests.seqbench.test_module import pair
from tests.seqbench.toy_config import broken, toy_config

CPU = torch.device("cpu")


def feed_of(count: int, *, ahead: bool, **loader: Any) -> Feed:
    _, task = pair()
    feed = Feed(task.loader("train", batching=Batching(rows=4), seed=5, shuffle=True, **loader), count)
    feed.carrier = Carrier(CPU) if ahead else None
    return feed


def told(feed: Feed) -> dict[str, Any]:
    """All that a step may read of a feed, less its clock."""
    state = {key: value for key, value in feed.state_dict().items() if key != "waited"}
    return state | {"weighs": feed.weighs, "own": feed.own}


@pytest.mark.parametrize("share", [Share(), Share(parts=3, rank=1, ranks=2)])  # 4 rows a batch: empty parts
def test_a_batch_in_advance_is_in_no_count(share: Share) -> None:
    plain, ahead = (feed_of(30, ahead=way, share=share) for way in (False, True))
    seen = [[(batch.index.tolist(), told(feed)) for batch in feed] for feed in (plain, ahead)]
    assert len(seen[0]) == 30
    assert seen[0] == seen[1]


def test_it_is_taken_while_the_one_before_is_worked_on_and_never_beyond_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    iterate, made = Loader.__iter__, []

    def counting(self: Loader) -> Any:
        for batch in iterate(self):
            made.append(batch)
            yield batch

    monkeypatch.setattr(Loader, "__iter__", counting)
    assert [len(made) for _ in feed_of(11, ahead=True)] == [*range(2, 12), 11]
    made.clear()
    assert [len(made) for _ in feed_of(3, ahead=False)] == [1, 2, 3]


@pytest.mark.parametrize(("error", "given"), [(OSError("a bad row"), 5), (TimedOut(), 4), (KeyboardInterrupt(), 4)])
def test_a_mistake_is_raised_when_its_batch_is_due_and_what_comes_from_outside_at_once(
    error: BaseException, given: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    iterate = Loader.__iter__

    def failing(self: Loader) -> Any:
        for number, batch in enumerate(iterate(self)):
            if number == 5:
                raise error
            yield batch

    monkeypatch.setattr(Loader, "__iter__", failing)
    feed = feed_of(11, ahead=True)
    seen = []
    with pytest.raises(type(error)):
        seen += list(map(seen.append, feed))
    assert len(seen) == given
    assert feed.state_dict()["loader"]["position"] == given


@pytest.mark.parametrize("workers, parts", [(0, 2), (1, 2), (0, 1)])
def test_a_run_in_many_parts_comes_to_the_same_bits(
    workers: int, parts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout, accumulation, several epochs; stopped three times; against a run that takes no batch in advance."""
    more = {"trainer.accumulate": parts}
    straight = run(toy_config(tmp_path / "straight", more)).record
    carriers: list[Carrier] = []

    def forced(device: torch.device) -> Carrier:
        carriers.append(Carrier(device))
        return carriers[-1]

    monkeypatch.setattr(transfer, "carrier", forced)
    config = toy_config(tmp_path, broken("interrupt", 6 * parts) | more | {"trainer.workers": workers})
    for attempt in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(config)
        state = Checkpoints(next(tmp_path.glob("*/checkpoints"))).load("last")
        assert state is not None
        step = state["progress"]["step"]
        assert step == 6 * (attempt + 1)
        loader = state["feed"]["loader"]
        assert loader["epoch"] * 6 + loader["position"] == step  # six steps an epoch, the one in advance not among them
    monkeypatch.setenv("SEQBENCH_TOY_HEALTHY", "1")
    record = run(config).record
    assert (record.resumed, len(carriers)) == (3, 4)
    whole = run(toy_config(tmp_path / "whole", more | {"trainer.workers": workers})).record
    assert same_result(whole, straight)
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "carrier", lambda device: None)
        assert same_result(record, run(toy_config(tmp_path / "same", broken("interrupt", 6 * parts) | more)).record)


@dataclass(frozen=True, kw_only=True, slots=True)
class Nested(Batch):
    source: Sequences
    more: dict[str, Any]
    name: str


def test_tensors_are_found_however_deep() -> None:
    source = Sequences(values=torch.tensor([[1, 2]]), mask=torch.tensor([[True, False]]))
    pairs: list[Any] = [torch.tensor([5]), (torch.tensor([6]), None)]
    batch = Nested(index=torch.tensor([0]), source=source, more={"pairs": pairs}, name="x")
    assert len(list(transfer.tensors(batch))) == 5

    def twice(tensor: Tensor) -> Tensor:
        return tensor if tensor.dtype == torch.bool else tensor * 2

    found = transfer.changed(batch, twice)
    assert type(found) is Nested
    assert found.source.values.tolist() == [[2, 4]]
    assert found.source.mask is source.mask
    assert found.more["pairs"][1][0].item() == 12
    assert (found.more["pairs"][1][1], found.name) == (None, "x")
    assert batch.source.values.tolist() == [[1, 2]]


def test_on_a_cpu_there_is_no_carrier() -> None:
    assert transfer.carrier(CPU) is None


@pytest.mark.cuda
def test_batches_arrive_from_a_stream_of_their_own() -> None:
    device = torch.device("cuda", 0)
    plain, ahead = feed_of(30, ahead=False), feed_of(30, ahead=True)
    ahead.carrier = transfer.carrier(device)
    assert ahead.carrier is not None
    assert ahead.carrier.stream != torch.cuda.current_stream(device)
    for here, there in zip(plain, ahead, strict=True):
        torch.cuda._sleep(1_000_000)  # the device is busy with a step
        assert all(tensor.device == device for tensor in transfer.tensors(there))
        pairs = zip(transfer.tensors(here), transfer.tensors(there), strict=True)
        assert all(torch.equal(one, other.cpu()) for one, other in pairs)
        assert told(plain) == told(ahead)


@pytest.mark.cuda
def test_a_run_on_cuda_in_parts_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = {"trainer.accelerator": "gpu", "trainer.precision": "bf16-mixed"}
    config = toy_config(tmp_path, broken("interrupt", 12) | gpu)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    monkeypatch.setenv("SEQBENCH_TOY_HEALTHY", "1")
    record = run(config).record
    assert record.resumed == 1
    assert same_result(record, run(toy_config(tmp_path / "straight", broken("interrupt", 12) | gpu)).record)
