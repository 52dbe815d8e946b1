"""SkeletonMAE: the sheet's numbers, what reaches a hidden joint, what the classifier takes over.

No code of it was released, so there is none to compare with; layers are held against their sums in numpy.
"""
# F frames, N nodes, D width

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from encoders.base import Graph, InputSpec, Sequences
from encoders.systems.skeletonmae import SkeletonMAE
from encoders.systems.skeletonmae_graph import GAT, GCN, GIN
from seqbench.build import build
from seqbench.composition.nodes import compose_node
from seqbench.errors import ConfigError
from tasks.data.jhmdb_pose import SKELETON

PATH = Graph(nodes=4, width=2, edges=((0, 1), (1, 2), (2, 3)))
COCO = Graph(
    nodes=17,
    width=2,
    edges=(
        *((0, 1), (0, 2), (1, 3), (2, 4), (0, 5), (0, 6), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10)),
        *((5, 11), (6, 12), (11, 12), (11, 13), (13, 15), (12, 14), (14, 16)),
    ),
)
UNLIKE = Graph(nodes=6, width=2, edges=((0, 1), (1, 2), (3, 4), (3, 5)))  # two persons, joined otherwise
RIGHT_SHOULDER, RIGHT_ELBOW, RIGHT_WRIST = 3, 7, 11


def spec_of(graph: Graph | None, *, told: bool = False, length: int = 6) -> InputSpec:
    streams = {"hidden": InputSpec(max_length=length, channels=graph.nodes)} if told and graph else {}
    channels = graph.nodes * graph.width if graph else 3
    return InputSpec(max_length=length, channels=channels, graph=graph, streams=streams)


def make(name: str = "skeletonmae", *, spec: InputSpec, seed: int = 0, **changes: Any) -> SkeletonMAE:
    torch.manual_seed(seed)
    made = build({**compose_node("encoder", name), **changes}, "encoder", ["encoders"], spec=spec).eval()
    assert isinstance(made, SkeletonMAE)
    return made


def source_of(values: torch.Tensor, hidden: torch.Tensor | None = None) -> Sequences:
    mask = torch.ones(values.shape[:2], dtype=torch.bool)
    streams = {} if hidden is None else {"hidden": Sequences(values=hidden.float(), mask=mask)}
    return Sequences(values=values, mask=mask, streams=streams)


@pytest.mark.parametrize("backbone", ["gin", "gcn", "gat"])
@pytest.mark.parametrize("states", ["frames", "nodes"])
def test_a_frame_of_one_joint_trains_alone(states: str, backbone: str) -> None:
    """Every batch norm then has one value a channel: by the averages so far."""
    made = make(spec=spec_of(Graph(nodes=1, width=2, edges=())), states=states, backbone=backbone)
    source = source_of(torch.randn(1, 1, 2))
    torch.testing.assert_close(made.train()(source).values, made.eval()(source).values)


# -- layers ----------------------------------------------------------------------------------------------------------
def test_gin_sums_what_the_sheet_has() -> None:
    layer = GIN(dim=2, adjacency=PATH.adjacency())
    h_FND = torch.arange(8.0).view(1, 4, 2)
    found = (1 + layer.eps) * h_FND + layer.neighbours(h_FND)
    assert found[0].tolist() == [[2, 4], [6, 9], [12, 15], [10, 12]]
    layer.eps.data += 0.5
    found = (1 + layer.eps) * h_FND + layer.neighbours(h_FND)
    assert found[0, 1].tolist() == [7, 10.5]


def test_gin_is_its_equation() -> None:
    layer = GIN(dim=3, adjacency=PATH.adjacency()).eval()
    layer.norm.running_mean.normal_()  # type: ignore[union-attr]
    layer.eps.data.fill_(0.3)
    h = torch.randn(2, 4, 3)
    a = PATH.adjacency().numpy()
    w1, b1, w2, b2 = (p.detach().numpy() for p in (*layer.up.parameters(), *layer.down.parameters()))
    x = (1.3 * h.numpy() + a @ h.numpy()) @ w1.T + b1
    x = (x - layer.norm.running_mean.numpy()) / np.sqrt(1 + 1e-5)  # type: ignore[union-attr]
    x = np.where(x > 0, x, 0.25 * x) @ w2.T + b2
    np.testing.assert_allclose(layer(h).detach().numpy(), x, atol=1e-5)


def test_gcn_and_gat_are_their_equations() -> None:
    h, a = torch.randn(1, 4, 4), PATH.adjacency().numpy() + np.eye(4)
    gcn = GCN(dim=4, adjacency=PATH.adjacency()).eval()
    w, b = (p.detach().numpy() for p in gcn.linear.parameters())
    smooth = a / np.sqrt(np.outer(a.sum(0), a.sum(0)))
    x = smooth @ (h[0].numpy() @ w.T + b) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(gcn(h)[0].detach().numpy(), np.where(x > 0, x, 0.25 * x), atol=1e-5)

    gat = GAT(dim=4, adjacency=PATH.adjacency(), heads=2).eval()
    w, b = (p.detach().numpy() for p in gat.linear.parameters())
    of, to = gat.of.detach().numpy(), gat.to_.detach().numpy()
    v = (h[0].numpy() @ w.T + b).reshape(4, 2, 2)
    y = np.zeros((4, 2, 2))
    for head in range(2):
        for i in range(4):
            near = [j for j in range(4) if a[i, j]]
            scores = [of[head] @ v[i, head] + to[head] @ v[j, head] for j in near]
            weights = np.exp([s if s > 0 else 0.2 * s for s in scores])
            y[i, head] = sum(s * v[j, head] for s, j in zip(weights / weights.sum(), near, strict=True))
    y = y.reshape(4, 4) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(gat(h)[0].detach().numpy(), np.where(y > 0, y, 0.25 * y), atol=1e-5)
    with pytest.raises(ValueError, match="heads: dim 4 can't be divided by 3 heads; use heads 2, or dim 3"):
        GAT(dim=4, adjacency=PATH.adjacency(), heads=3)


def test_parameters_of_the_sheet() -> None:
    made = make(states="nodes", spec=spec_of(SKELETON))
    layers = [*made.graph, *made.decoder]  # type: ignore[misc]
    counts = [sum(p.numel() for p in layer.parameters()) for layer in layers]
    assert counts == [8450] * 4


# -- the autoencoder -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("backbone", ["gin", "gcn", "gat"])
def test_joints_in_another_order_are_states_in_that_order(backbone: str) -> None:
    order = torch.randperm(15).tolist()
    place = {node: i for i, node in enumerate(order)}
    other = replace(SKELETON, edges=tuple((place[a], place[b]) for a, b in SKELETON.edges), parts=())
    values = torch.randn(2, 3, 15, 2)
    for states in ("nodes", "frames"):
        one = make(states=states, backbone=backbone, spec=spec_of(SKELETON))
        turned = make(states=states, backbone=backbone, spec=spec_of(other), seed=1)
        turned.load_state_dict(one.state_dict())
        found = turned(source_of(values[:, :, order].flatten(2))).values
        expected = one(source_of(values.flatten(2))).values
        if states == "nodes":
            expected = expected.view(2, 3, 15, -1)[:, :, order].flatten(1, 2)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_what_is_hidden_does_not_leak_and_is_seen_three_bones_far() -> None:
    """One graph layer before the map is `depth` 3; with `remask` the decoder's one more bone adds no hidden joint."""
    made = make(states="nodes", spec=spec_of(SKELETON, told=True))
    hidden = torch.zeros(1, 1, 15)
    hidden[..., [RIGHT_ELBOW, RIGHT_WRIST]] = 1
    values = torch.randn(1, 1, 15, 2)
    changed = values.clone()
    changed[:, :, [RIGHT_ELBOW, RIGHT_WRIST]] += 5
    one = made(source_of(values.flatten(2), hidden)).values
    assert torch.equal(one, made(source_of(changed.flatten(2), hidden)).values)

    distance = _distances(SKELETON)
    x = values.clone().requires_grad_()
    h_BLPND = made.embed(x.unsqueeze(2))
    h_BLPND = torch.where(hidden.bool().view(1, 1, 1, 15, 1), made.token, h_BLPND)  # type: ignore[arg-type]
    encoded = made.graph(h_BLPND[0, 0])[0, RIGHT_WRIST].sum()
    (gradient,) = torch.autograd.grad(encoded, x)
    reached = set(gradient[0, 0].abs().sum(1).nonzero().flatten().tolist())
    near = {n for n in range(15) if distance[RIGHT_WRIST, n] <= 3} - {RIGHT_ELBOW, RIGHT_WRIST}
    assert reached == near  # the shoulder and the neck
    assert reached == {RIGHT_SHOULDER, 0}


def test_each_frame_is_a_graph_of_its_own_and_a_token_stands_for_what_is_hidden() -> None:
    made = make(states="nodes", spec=spec_of(SKELETON, told=True))
    values, hidden = torch.randn(1, 4, 30), torch.zeros(1, 4, 15)
    hidden[..., :2] = 1
    whole = made(source_of(values, hidden)).values.view(4, 15, -1)
    alone = [made(source_of(values[:, t : t + 1], hidden[:, :1])).values[0] for t in range(4)]
    torch.testing.assert_close(whole, torch.stack(alone), atol=1e-5, rtol=1e-5)
    made.token.data += 1  # type: ignore[union-attr]
    assert (made(source_of(values, hidden)).values.view(4, 15, -1) - whole).abs().max() > 1e-3


@pytest.mark.parametrize("remask", [True, False])
def test_with_remask_the_decoder_has_nothing_of_the_encoder_at_hidden_joints(remask: bool) -> None:
    made = make(states="nodes", remask=remask, spec=spec_of(SKELETON, told=True))
    hidden = torch.zeros(1, 1, 15)
    hidden[..., RIGHT_WRIST] = 1
    seen: list[torch.Tensor] = []
    made.decoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    made(source_of(torch.randn(1, 1, 30), hidden))
    assert bool((seen[0][0, RIGHT_WRIST] == 0).all()) is remask
    assert (seen[0][0, RIGHT_ELBOW] != 0).any()


def _distances(graph: Graph) -> np.ndarray:
    a = graph.adjacency().numpy() + np.eye(graph.nodes)
    reach = [np.linalg.matrix_power(a, k) > 0 for k in range(graph.nodes)]
    found: np.ndarray = np.argmax(np.stack(reach), axis=0)
    return found


# -- the classifier --------------------------------------------------------------------------------------------------
def test_strl_takes_the_graph_encoder_into_every_layer_and_person() -> None:
    two = Graph(nodes=8, width=2, edges=(*PATH.edges, *((a + 4, b + 4) for a, b in PATH.edges)))
    before = make(states="nodes", persons=2, spec=spec_of(two, told=True))
    after = make(persons=2, spec=spec_of(two), seed=1)
    own = {name: value.clone() for name, value in after.state_dict().items()}
    found = after.inherited(before.state_dict())
    assert list(found) == list(own)
    copies = [(layer, person) for layer in range(2) for person in range(2)]
    for name, value in before.graph.state_dict().items():
        for layer, person in copies:
            assert torch.equal(found[f"layers.{layer}.graphs.{person}.{name}"], value)
    assert torch.equal(found["embed.weight"], before.embed.weight)
    new = [name for name in own if ".graphs." not in name and not name.startswith("embed.")]
    assert all(torch.equal(found[name], own[name]) for name in new)
    assert {name.split(".")[0] for name in new} == {"position", "layers", "temporal"}
    assert after.inherited(own) is own  # of a run like it, all
    weights = before.state_dict()
    del weights["graph.0.eps"]
    assert "layers.0.graphs.0.0.eps" not in after.inherited(weights)  # so it is refused as absent


def test_an_absent_person_changes_nothing_and_is_in_no_statistics() -> None:
    two = Graph(nodes=8, width=2, edges=(*PATH.edges, *((a + 4, b + 4) for a, b in PATH.edges)))
    made, again = (make(persons=2, spec=spec_of(two)).train() for _ in range(2))
    for name, parameter in again.named_parameters():
        if ".graphs.1." in name:
            parameter.data += 7.0  # whatever the other person's encoder would say
    values = torch.randn(3, 5, 16)
    values[..., 8:] = 0
    one, other = made(source_of(values)), again(source_of(values))
    torch.testing.assert_close(one.values, other.values)
    kept = {name: value for name, value in made.state_dict().items() if "running" in name and ".graphs.1." not in name}
    assert kept
    for name, value in kept.items():
        torch.testing.assert_close(again.state_dict()[name], value)


def test_sum_pooling_repeats_the_sum_over_joints() -> None:
    made = make(layers=1, spec=spec_of(SKELETON))
    layer = made.layers[0]
    h = torch.randn(2, 3, 1, 15, 64)
    there = torch.ones(2, 3, 1, dtype=torch.bool)
    summed = layer.graphs[0](h.view(6, 15, 64)).sum(1).view(2, 3, 1, 1, 64)  # type: ignore[index,operator]
    sm = summed / np.sqrt(1 + 1e-5) + layer.residual(h)  # type: ignore[operator]
    expected = (layer.mix(sm) / np.sqrt(1 + 1e-5)).relu()  # type: ignore[operator]
    torch.testing.assert_close(layer(h, there), expected, atol=1e-4, rtol=1e-4)


TWO = Graph(nodes=8, width=2, edges=(*PATH.edges, *((a + 4, b + 4) for a, b in PATH.edges)))


def clips(*lengths: int) -> Sequences:
    """Of two persons; the second one is away in the third frame, and nobody is there in the fifth."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    values = torch.randn(*mask.shape, 16)
    values[:, 2, 8:] = 0
    values[:, 4] = 0
    return Sequences(values=torch.where(mask[..., None], values, 50 * values), mask=mask)


def draw_norms(made: SkeletonMAE) -> None:
    """At their start they hardly show."""
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for value in (module.running_mean, module.weight.data, module.bias.data):
                value.normal_()
            module.running_var.uniform_(0.5, 2)


def by_loops(made: SkeletonMAE, values_LE: torch.Tensor, stops: dict[str, list[torch.Tensor]]) -> torch.Tensor:
    """STRL of one clip of two persons, frame by frame, (L, D); what its norms are given is put into `stops`."""
    x_LPNC = values_LE.view(-1, 2, 4, 2)
    length, dim = len(x_LPNC), made.dim
    there = (x_LPNC != 0).flatten(2).any(2).tolist()

    def stop(name: str, norm: Any, x: torch.Tensor) -> torch.Tensor:
        stops.setdefault(name, []).append(x)
        scaled: torch.Tensor = (x - norm.running_mean) / (norm.running_var + 1e-5).sqrt() * norm.weight + norm.bias
        return scaled

    h = [[made.embed(x_LPNC[t, p]) + made.position[t, 0] for p in range(2)] for t in range(length)]
    for i, layer in enumerate(made.layers):
        after = []
        for t in range(length):
            sm = [torch.zeros(4, dim)] * 2
            for p in range(2):
                if there[t][p]:
                    total = layer.graphs[p](h[t][p][None])[0].sum(0, keepdim=True)  # type: ignore[index,operator]
                    sm[p] = stop(f"layers.{i}.sum_norm", layer.sum_norm, total) + layer.residual(h[t][p])  # type: ignore[operator]
            joined = torch.zeros(4, 2 * dim)
            if any(there[t]):
                mixed = layer.mix(torch.cat(sm, 1))  # type: ignore[operator]
                joined = stop(f"layers.{i}.norm", layer.norm, mixed).relu()
            after.append([joined[:, :dim], joined[:, dim:]])
        h = after
    unit, states = made.temporal, []
    none = torch.zeros(4, dim // 4)
    parts = [
        [[part(h[t][p]).relu() if there[t][p] else none for t in range(length)] for p in range(2)]
        for part in unit.parts
    ]
    for t in range(length):
        here = []
        for p in range(2):
            if not there[t][p]:
                continue
            found = []
            for k, convolution in enumerate(unit.convolutions):
                taps = [(j, t + (k + 1) * (j - 2)) for j in range(5)]  # dilations 1 and 2
                weight, bias = convolution.weight, convolution.bias
                terms = [parts[k][p][at] @ weight[:, :, j].T for j, at in taps if 0 <= at < length]  # type: ignore[index]
                found.append(torch.stack(terms).sum(0) + bias)  # type: ignore[operator]
            near = [parts[2][p][at] for at in (t - 1, t, t + 1) if 0 <= at < length]
            found += [torch.stack(near).amax(0), parts[3][p][t]]
            here.append(h[t][p] + stop("temporal.norm", unit.norm, torch.cat(found, 1)).relu())
        states.append(torch.stack(here).mean((0, 1)) if here else torch.zeros(dim))
    return torch.stack(states)


@torch.no_grad()
def test_strl_is_its_loops_over_frames_and_persons() -> None:
    """Clips of unequal lengths in one batch, persons that come and go."""
    made, source = make(persons=2, spec=spec_of(TWO, length=9)), clips(9, 7)
    stops: dict[str, list[torch.Tensor]] = {}
    draw_norms(made)
    found = made(source)
    for row, length in enumerate((9, 7)):
        expected = by_loops(made, source.values[row, :length], stops)
        torch.testing.assert_close(found.values[row, :length], expected, atol=1e-4, rtol=1e-4)
    assert len(stops["layers.0.sum_norm"]) == 2 * (9 + 7 - 2) - 2
    assert sum(map(len, stops["temporal.norm"])) == 4 * len(stops["layers.1.sum_norm"])


@torch.no_grad()
def test_averages_in_training_are_of_who_is_there() -> None:
    """What a padded frame or an absent person holds moves none of the norms."""
    source = clips(9, 7)
    other = Sequences(values=torch.where(source.mask[..., None], source.values, -3 + source.values), mask=source.mask)
    alone = [
        Sequences(values=source.values[i : i + 1, :n], mask=source.mask[i : i + 1, :n]) for i, n in ((0, 9), (1, 7))
    ]
    averages = []
    for given in (source, other):
        made = make(persons=2, spec=spec_of(TWO, length=9)).train()
        made(given)
        averages.append({name: value for name, value in made.state_dict().items() if "running" in name})
    for name, value in averages[0].items():
        torch.testing.assert_close(averages[1][name], value, msg=name)
    made, seen = make(persons=2, spec=spec_of(TWO, length=9)), []  # eval: rows one by one say what a norm is given
    made.layers[0].sum_norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))  # type: ignore[union-attr]
    for given in (*alone, source):
        made(given)
    assert len(seen[0]) == 8 + 7
    assert len(seen[1]) == 6 + 5
    torch.testing.assert_close(torch.cat(seen[:2]), seen[2])


def test_with_two_persons_each_has_its_own_hidden_joints_remasked() -> None:
    made = make(states="nodes", persons=2, remask=True, spec=spec_of(TWO, told=True))
    hidden = torch.zeros(1, 2, 8)
    hidden[0, 0, 6] = hidden[0, 1, 1] = 1
    seen: list[torch.Tensor] = []
    made.decoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    made(source_of(torch.randn(1, 2, 16), hidden))
    assert (seen[0].view(2, 8, -1) == 0).all(-1).tolist() == hidden[0].bool().tolist()


def test_a_person_all_hidden_is_told_from_the_other() -> None:
    """Fed as zeros, as one that is absent; in the autoencoder it is there, and its joints are all the learnt vector."""
    made = make(states="nodes", persons=2, remask=False, spec=spec_of(TWO, told=True))
    values, hidden = torch.randn(1, 3, 16), torch.zeros(1, 3, 8)
    values[..., 8:] = 0
    hidden[..., 4:] = 1
    states = made(source_of(values, hidden))
    assert states.mask.all()
    assert made.token is not None
    other = made.decoder(made.map(made.graph(made.token.expand(1, 4, -1))))[0]
    torch.testing.assert_close(states.values.view(3, 2, 4, -1)[:, 1], other.expand(3, 4, -1), atol=1e-5, rtol=1e-5)
    assert other.abs().max() > 1e-2


@torch.no_grad()
def test_what_learns_and_how_it_begins() -> None:
    """Of the autoencoder: embedding, vector, 3 + 1 layers, a map without bias; the vector and positions are small."""
    made = make(states="nodes", spec=spec_of(SKELETON, told=True))
    assert sum(p.numel() for p in made.parameters()) == (2 * 64 + 64) + 64 + 4 * 8450 + 64 * 64
    assert made.token is not None
    assert made.causal  # frame by frame
    for values in (made.token, make(spec=spec_of(SKELETON, length=40)).position):
        assert float(values.std()) == pytest.approx(0.02, rel=0.3)
    assert not make(spec=spec_of(SKELETON)).causal


def test_published_values() -> None:
    published = compose_node("encoder", "published/skeletonmae")
    expected = {"layers": 3, "persons": 2, "dim": 64, "depth": 3, "backbone": "gin", "remask": True}
    assert {key: published[key] for key in expected} == expected


def test_published_parameters_by_formula() -> None:
    """No count is published: that of three layers and two persons, width 64, as the class says."""
    spec = replace(spec_of(Graph(nodes=34, width=2, edges=_twice(COCO))), max_length=64)
    made = make("published/skeletonmae", spec=spec)
    d, p, gin = 64, 2, 8450
    layer = p * 3 * gin + 2 * d + (d * d + d) + (p * d) ** 2 + 2 * p * d
    temporal = 4 * (d * d // 4 + d // 4) + 2 * (5 * (d // 4) ** 2 + d // 4) + 2 * d
    assert sum(q.numel() for q in made.parameters()) == (2 * d + d) + 64 * d + 3 * layer + temporal


def _twice(graph: Graph) -> tuple[tuple[int, int], ...]:
    return (*graph.edges, *((a + graph.nodes, b + graph.nodes) for a, b in graph.edges))


@pytest.mark.parametrize(
    "changes, graph, message",
    [
        ({}, None, "reads the joints of skeletons"),
        ({"persons": 2}, SKELETON, "persons: 2, but the 15 nodes"),
        ({"persons": 2}, PATH, "persons: 2, but the 4 nodes"),
        ({"persons": 2}, UNLIKE, "persons: 2, but the 6 nodes"),
        ({"dilations": []}, SKELETON, r"dilations: \[\]; give one or more"),
        ({"dim": 66}, SKELETON, r"dim: 66 can't be shared by 4 branches, .*; use 64"),
        ({"kernel_size": 4}, SKELETON, "kernel_size: 4 has no middle; use 5"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], graph: Graph | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(spec=spec_of(graph), **changes)
