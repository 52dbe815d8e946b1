"""Masked channels: the sheet's numbers of the loss, what each mask hides, what an encoder is fed and asked."""
# M hidden nodes, C channels of a node

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from encoders.base import Encoder, Graph, Sequences, States
from tasks.data.base import SPLITS, DataSet, Example, FileFact
from tasks.masked_channels import MaskedChannels, reweighted_cosine_error
from tasks.metrics.errors import MSE

GRAPH = Graph(nodes=5, width=2, edges=((0, 1), (1, 2), (2, 3), (3, 4)), parts=((0,), (1, 2), (3, 4)))
MEAN, SPREAD = np.arange(10.0) - 3, np.arange(1.0, 11)


class Walks(DataSet):
    modality = "skeleton"

    def __init__(self, graph: Graph | None = GRAPH) -> None:
        self.graph = graph

    def identity(self) -> list[FileFact]:
        return []

    def check(self) -> None:
        pass

    def read(self, split: str) -> Sequence[Example]:
        generator = np.random.default_rng(SPLITS.index(split))
        lengths = [7, 4, 9, 5] * 10
        return [
            Example(source=(MEAN + SPREAD * generator.normal(size=(n, 10))).astype(np.float32), target="a")
            for n in lengths
        ]


def make(*, graph: Graph | None = GRAPH, **changes: Any) -> MaskedChannels:
    arguments: dict[str, Any] = {
        "max_length": 12,
        "window": 4,
        "mask": "part",
        "parts": [1],
        "share": 0.3,
        "mark": "value",
        "loss": "rce",
        "beta": 2.0,
        "shuffle": False,
        "metrics": [MSE()],
    }
    task = MaskedChannels(data=Walks(graph), **(arguments | changes))
    task.setup()
    return task.eval()


class Spy(Encoder):
    """Keeps what it is fed; its states are a learnt map of that, one a position, or one a node."""

    causal = False

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.dim, self.nodes = 6, nodes
        self.fed: list[Sequences] = []
        self.map = torch.nn.Linear(10 // nodes, 6)

    def num_states(self, length: int) -> int:
        return length * self.nodes

    def forward(self, source: Sequences) -> States:
        self.fed.append(source)
        values = self.map(source.values.reshape(len(source.mask), self.num_states(source.mask.shape[1]), -1))
        return States(values=values, mask=source.mask.repeat_interleave(self.nodes, 1))


def served(task: MaskedChannels, nodes: int = 5) -> Spy:
    spy = Spy(nodes)
    task.attach(spy)
    return spy


# -- the loss --------------------------------------------------------------------------------------------------------
def test_the_numbers_of_the_sheet() -> None:
    i = torch.arange(15, dtype=torch.float64)
    x, y = i.sin().view(5, 3)[[1, 3, 4]], i.cos().view(5, 3)[[1, 3, 4]]
    cosines = [
        float(np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b))) for a, b in zip(x.numpy(), y.numpy(), strict=True)
    ]
    assert cosines == pytest.approx([0.055309, 0.051049, 0.042657], abs=1e-6)
    mean = float(reweighted_cosine_error(x, y, 2.0))
    assert mean == pytest.approx(0.903152, abs=1e-6)
    printed = sum((1 / 3 - cosine / 3) ** 2 for cosine in cosines)
    assert printed == pytest.approx(0.301051, abs=1e-6)
    assert mean / printed == pytest.approx(3)


def test_the_loss_knows_directions_alone() -> None:
    x, y = torch.randn(6, 3), torch.randn(6, 3)
    for beta in (1.0, 2.0, 3.0):
        loss = reweighted_cosine_error(x, y, beta)
        torch.testing.assert_close(reweighted_cosine_error(x, y * torch.rand(6, 1).add(0.1), beta), loss)
        assert float(reweighted_cosine_error(x, 3 * x, beta)) == pytest.approx(0, abs=1e-6)
        assert float(reweighted_cosine_error(x, -x, beta)) == pytest.approx(2**beta, rel=1e-5)


# -- what is hidden --------------------------------------------------------------------------------------------------
def hidden_of(task: MaskedChannels, draws: Tensor, mask: Tensor | None = None) -> Tensor:
    return task.hidden(draws, torch.ones(draws.shape[:2], dtype=torch.bool) if mask is None else mask)


def test_each_mask_hides_what_it_says() -> None:
    draws = torch.rand(64, 4, 5)
    assert hidden_of(make(), draws).float().mean((0, 1)).tolist() == [0, 1, 1, 0, 0]
    assert hidden_of(make(parts=[0, 2]), draws).float().mean((0, 1)).tolist() == [1, 0, 0, 1, 1]

    random = hidden_of(make(mask="random"), draws)
    assert (random.sum(2) == 2).all()  # as many as the part has
    assert (random.float().mean((0, 1)) > 0.2).all()
    assert (random[:, 0] != random[:, 1]).any()
    assert (hidden_of(make(mask="random", parts=[]), draws).sum(2) == 2).all()  # 0.3 of 5, rounded

    frame = hidden_of(make(mask="frame"), draws)
    assert (frame == frame[:, :1]).all()
    assert {tuple(row.nonzero().flatten().tolist()) for row in frame[:, 0]} == set(GRAPH.parts)

    position = hidden_of(make(mask="position"), draws)
    assert (position == position[:, :, :1]).all()
    assert position[:, :, 0].any(1).all()  # one at least
    assert 0.25 < position.float().mean() < 0.45


@pytest.mark.parametrize("mask", ["part", "random", "frame", "position"])
def test_padding_is_never_hidden_and_each_row_has_something(mask: str) -> None:
    real = torch.arange(4) < torch.tensor([1, 2, 4, 3] * 20).unsqueeze(1)
    hidden = hidden_of(make(mask=mask), torch.rand(80, 4, 5), real)
    assert not hidden[~real].any()
    assert hidden.flatten(1).any(1).all()


@pytest.mark.parametrize("mask", ["part", "random", "frame", "position"])
def test_what_a_row_hides_in_evaluation_is_the_same_in_every_batch(mask: str) -> None:
    task = make(mask=mask)
    batch = task.collate("test", np.arange(8))
    whole = hidden_of(task, batch.draws, batch.source.mask)
    for row, length in enumerate(task.lengths("test")[:8].tolist()):
        alone = task.collate("test", np.array([row]))
        assert torch.equal(hidden_of(task, alone.draws, alone.source.mask)[0], whole[row, :length])


# -- what is fed and asked -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("nodes", [1, 5])
@pytest.mark.parametrize("mark", ["value", "stream"])
def test_hidden_channels_do_not_reach_the_encoder_and_no_others_are_asked(mark: str, nodes: int) -> None:
    task = make(mark=mark)
    spy = served(task, nodes)
    assert set(task.spec.streams) == ({"hidden"} if mark == "stream" else set())
    if task.instead is not None:
        task.instead.data += 0.5
    batch = task.collate("test", np.arange(3))
    with torch.no_grad():
        task(spy, batch)
    fed, source = spy.fed[0].values.view(3, 4, 5, 2), batch.source.values.view(3, 4, 5, 2)
    assert (fed[:, :, 1:3] == (0.5 if mark == "value" else 0))[batch.source.mask].all()
    assert torch.equal(fed[:, :, [0, 3, 4]], source[:, :, [0, 3, 4]])
    if mark == "stream":
        assert torch.equal(spy.fed[0].streams["hidden"].values[batch.source.mask][0], torch.tensor([0.0, 1, 1, 0, 0]))

    states = torch.randn(3, 4 * nodes, 6, requires_grad=True)
    spy.forward = lambda source: States(values=states, mask=source.mask)  # type: ignore[method-assign]
    task(spy, batch).loss.backward()
    assert states.grad is not None
    touched = states.grad.view(3, 4, nodes, 6).abs().sum(3) > 0
    asked = torch.tensor([False, True, True, False, False]) if nodes == 5 else torch.tensor([True])
    assert torch.equal(touched, asked & batch.source.mask.unsqueeze(2))


@pytest.mark.parametrize("loss", ["rce", "mse"])
@pytest.mark.parametrize("mask", ["part", "random", "frame", "position"])
def test_the_loss_is_the_mean_over_hidden_nodes_and_predictions_are_theirs(loss: str, mask: str) -> None:
    task = make(loss=loss, mask=mask)
    spy = served(task)
    batch = task.collate("valid", np.arange(6))
    with torch.no_grad():
        output = task(spy, batch)
        y = task.head(spy(spy.fed[0]).values).view(6, -1, 5, task.out).numpy()
    hidden = task.hidden(batch.draws, batch.source.mask).numpy()
    scale = np.concatenate([e.source for e in Walks().read("train")]).astype(np.float64)
    x = (batch.source.values.numpy() - scale.mean(0)) / scale.std(0)
    x = x.reshape(6, -1, 5, 2)
    losses, points = [], []
    for row, t, n in np.argwhere(hidden):
        a, b = x[row, t, n], y[row, t, n].astype(np.float64)
        if loss == "mse":
            losses.append(((a - b) ** 2).mean())
            points.append(b)
        else:
            lifted = np.append(a, 1)
            losses.append((1 - lifted @ b / np.linalg.norm(lifted) / np.linalg.norm(b)) ** 2)
            points.append(b[:2] / max(b[2], 0.1))
    assert output.items == len(losses)
    assert float(output.loss) == pytest.approx(np.mean(losses), rel=1e-4)
    np.testing.assert_allclose(np.concatenate(output.predictions), points, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.concatenate(task.references("valid")[:6]), x[hidden], atol=1e-5)


def test_a_direction_tells_its_point() -> None:
    """Where the error is 0 the prediction is the target, whatever the norm."""
    task = make()
    spy = served(task)
    batch = task.collate("test", np.arange(4))
    x = task._standardised(batch.source.values)
    found = torch.nn.functional.pad(x, (0, 1), value=1.0) * 3.7
    task.head.forward = lambda input: found.flatten(1, 2)  # type: ignore[method-assign]
    output = task(spy, batch)
    assert float(output.loss) == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(
        np.concatenate(output.predictions), np.concatenate(task.references("test")[:4]), atol=1e-5
    )


def test_sources_are_cut_into_windows_and_all_of_them_counted() -> None:
    task = make()
    assert task.lengths("test").tolist() == [4, 3, 4, 4, 4, 1, 4, 1] * 10
    assert task.accounting("test").positions == 250
    whole = np.concatenate([example.source for example in Walks().read("test")])
    np.testing.assert_array_equal(task.rows["test"].values, whole)


def test_shuffled_joints_are_those_of_the_split_in_other_frames() -> None:
    plain, mixed = make().rows["train"].values, make(shuffle=True).rows["train"].values
    for node in range(5):
        one, other = plain[:, 2 * node : 2 * node + 2], mixed[:, 2 * node : 2 * node + 2]
        assert sorted(map(tuple, one)) == sorted(map(tuple, other))  # both channels of a node stay together
        assert (one != other).any(1).mean() > 0.9
    orders = [[plain[:, 2 * n].tolist().index(v) for v in mixed[:, 2 * n].tolist()] for n in range(2)]
    assert orders[0] != orders[1]


def test_training_draws_anew_and_evaluation_does_not() -> None:
    task = make(mask="random")
    spy = served(task)
    batch = task.collate("test", np.arange(8))
    again = task.collate("test", np.arange(8))
    assert torch.equal(batch.draws, again.draws)
    assert torch.equal(task.collate("test", np.array([5])).draws[0, :1], batch.draws[5, :1])
    task.train()
    for _ in range(2):
        task(spy, batch)
    assert not torch.equal(spy.fed[0].values, spy.fed[1].values)


def test_channels_without_a_graph_are_nodes() -> None:
    task = make(graph=None, mask="random", parts=[], share=0.2)
    assert (task.nodes, task.width, task.number) == (10, 1, 2)
    spy = served(task, 1)
    assert task(spy, task.collate("test", np.arange(3))).items == 2 * int(task.lengths("test")[:3].sum())


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"window": 13}, "window: 13 positions are more than max_length 12"),
        ({"graph": None}, r"mask: part, with parts \[1\] of 0"),
        ({"mask": "frame", "parts": []}, r"mask: frame, with parts \[\] of 3"),
        ({"parts": [3]}, r"parts: \[3\]; the data's are 0 to 2"),
        ({"parts": [1, 1]}, r"parts: \[1, 1\]"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_an_encoder_of_patches_is_refused() -> None:
    spy = Spy(5)
    spy.num_states = lambda length: length // 2  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="6 states for 12 positions of 5 nodes"):
        make().attach(spy)


@pytest.mark.parametrize(
    "graph, numbers, told",
    [
        (GRAPH, {1: True, 5: True, 2: False, 0.5: False}, " of 5 nodes"),
        (None, {1: True, 10: True, 0.5: False}, ""),  # as many nodes as channels, which only data tell
    ],
)
def test_an_encoder_without_a_state_for_each_is_refused_before_data_are_read(
    graph: Graph | None, numbers: dict[float, bool], told: str
) -> None:
    arguments: dict[str, Any] = {
        "max_length": 12,
        "window": 4,
        "parts": [1] if graph else [],
        "share": 0.3,
        "beta": 2.0,
    }
    arguments |= {"mask": "random", "mark": "value", "loss": "mse", "shuffle": False, "metrics": [MSE()]}
    task = MaskedChannels(data=Walks(graph), **arguments)
    for number, fits in numbers.items():
        encoder = Spy(1)
        encoder.num_states = lambda length, number=number: int(length * number)  # type: ignore[method-assign, misc]
        if fits:
            task.check_encoder(encoder)
            continue
        with pytest.raises(
            ValueError, match=f"an encoder of {int(12 * number)} states for 12 positions{told}; a state"
        ):
            task.check_encoder(encoder)
