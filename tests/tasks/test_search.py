from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from encoders.base import Decoder, InputSpec, Sequences
from seqbench.composition.nodes import compose_node
from tasks.search import Beam, Greedy, Hypothesis, Sample, Search, _moves
from tests.contract.cases import Case
from tests.tasks.toy_decoders import FormulaDecoder, GRUDecoder, sources

BOS, EOS = 0, 1
V = 4


def identity(states: Tensor) -> Tensor:
    return states


def run(search: Search, decoder: Decoder, source: Sequences, max_new: int = 5) -> list[Hypothesis]:
    return search(decoder, identity, source, bos=BOS, eos=EOS, max_new=max_new)


def log_probability(decoder: Decoder, source: Sequences, ids: list[int]) -> float:
    """Of ids (the end included, where there is one), all at once, without a cache between steps."""
    target = torch.tensor([[BOS, *ids[:-1]]])
    states = decoder.decode(Sequences(values=target, mask=torch.ones_like(target) > 0), decoder.prefill(source))
    logp = states.values[0].log_softmax(1)
    return float(logp.gather(1, torch.tensor(ids).unsqueeze(1)).sum().detach())


def with_end(h: Hypothesis) -> list[int]:
    return h.ids + [EOS] * h.finished


def row(source: Sequences, i: int) -> Sequences:
    length = int(source.mask[i].sum())
    return Sequences(values=source.values[i : i + 1, :length], mask=source.mask[i : i + 1, :length])


def greedy_by_hand(decoder: Decoder, source: Sequences, max_new: int) -> list[int]:
    """The whole prefix through the network at every step."""
    ids: list[int] = []
    while len(ids) < max_new:
        target = torch.tensor([[BOS, *ids]])
        states = decoder.decode(Sequences(values=target, mask=torch.ones_like(target) > 0), decoder.prefill(source))
        ids.append(int(states.values[0, -1].argmax()))
        if ids[-1] == EOS:
            break
    return ids


@pytest.fixture(params=["formula", "gru"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    if request.param == "formula":
        return FormulaDecoder(vocab_size=V)
    torch.manual_seed(0)
    return GRUDecoder(dim=11, spec=InputSpec(max_length=9, vocab_size=11, target_length=5))


EIGHT = sources([7, 1, 4, 9, 2, 9, 3, 5], vocab_size=11)


def test_greedy_is_the_loop_of_argmax_without_a_cache(decoder: Decoder) -> None:
    found = run(Greedy(), decoder, EIGHT)
    assert [with_end(h) for h in found] == [greedy_by_hand(decoder, row(EIGHT, i), 5) for i in range(8)]
    for i, h in enumerate(found):
        assert h.score == pytest.approx(log_probability(decoder, row(EIGHT, i), with_end(h)), abs=1e-4)
        assert len(with_end(h)) <= 5


def test_rows_end_at_different_steps_in_these_tests() -> None:
    lengths = {len(h.ids) for h in run(Greedy(), FormulaDecoder(vocab_size=V), EIGHT)}
    assert len(lengths) >= 3
    assert {h.finished for h in run(Greedy(), FormulaDecoder(vocab_size=V), EIGHT)} == {True, False}


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_beam_of_one_is_greedy(decoder: Decoder, alpha: float) -> None:
    beam, greedy = (run(s, decoder, EIGHT) for s in (Beam(size=1, length_penalty=alpha), Greedy()))
    assert [with_end(h) for h in beam] == [with_end(h) for h in greedy]


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
def test_a_wide_beam_is_exhaustive_search(alpha: float) -> None:
    decoder, steps = FormulaDecoder(vocab_size=V), 4
    words = [i for i in range(V) if i != EOS]
    ended = [[*ids, EOS] for n in range(steps) for ids in itertools.product(words, repeat=n)]
    everything = ended + [list(ids) for ids in itertools.product(words, repeat=steps)]
    for i in range(8):
        source = row(EIGHT, i)
        scored = [(log_probability(decoder, source, ids) / ((5 + len(ids)) / 6) ** alpha, ids) for ids in everything]
        best = max(scored)
        [found] = run(Beam(size=len(everything), length_penalty=alpha), decoder, source, max_new=steps)
        assert with_end(found) == best[1]
        assert found.score == pytest.approx(best[0], abs=1e-5)


def beam_by_hand(decoder: Decoder, source: Sequences, size: int, alpha: float, max_new: int) -> list[int]:
    """The docstring of Beam in lists, each prefix from its beginning, without the bound that stops early."""
    live: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[tuple[float, list[int]]] = []
    for step in range(1, max_new + 1):
        found = []
        for total, ids in live:
            target = torch.tensor([[BOS, *ids]])
            whole = Sequences(values=target, mask=torch.ones_like(target, dtype=torch.bool))
            logp = decoder.decode(whole, decoder.prefill(source)).values[0, -1].log_softmax(0)
            found += [(total + float(logp[token]), [*ids, token]) for token in range(decoder.dim)]
        best = sorted(found, key=lambda one: -one[0])  # stable: by beam, then by token
        finished += [(s / ((5 + step) / 6) ** alpha, ids) for s, ids in best[:size] if ids[-1] == EOS]
        live = [one for one in best if one[1][-1] != EOS][:size]
        if len(finished) >= size:
            break
    else:
        finished += [(s / ((5 + max_new) / 6) ** alpha, ids) for s, ids in live]
    return max(finished, key=lambda one: one[0])[1]


@pytest.mark.parametrize("size, alpha", [(2, 0.0), (2, 3.0), (3, 0.6), (3, 2.0), (5, 2.0)])
def test_beams_are_those_of_a_slow_search_in_lists(size: int, alpha: float) -> None:
    for end, vocab_size in ((-2.0, V), (0.0, V), (1.0, 9)):
        decoder = FormulaDecoder(vocab_size=vocab_size, scale=1.2, end=end)
        source = sources([1 + i % 9 for i in range(30)], vocab_size=50, seed=size)
        found = [with_end(h) for h in run(Beam(size=size, length_penalty=alpha), decoder, source, max_new=6)]
        assert found == [beam_by_hand(decoder, row(source, i), size, alpha, 6) for i in range(30)]


@pytest.mark.parametrize("seed", range(5))
def test_wider_beams_find_better_outputs(seed: int) -> None:
    source = sources([3, 5, 2, 7, 9, 4], vocab_size=11, seed=seed)
    decoder = FormulaDecoder(vocab_size=6, scale=1.5)
    scores = [[h.score for h in run(Beam(size=k, length_penalty=0.0), decoder, source, 8)] for k in (1, 5, 40)]
    assert all(a <= b + 1e-6 for pair in itertools.pairwise(scores) for a, b in zip(*pair, strict=True))
    assert sum(scores[0]) < sum(scores[1]) < sum(scores[2])  # and somewhere truly better


def test_the_length_penalty_prefers_long_outputs() -> None:
    decoder = FormulaDecoder(vocab_size=V, scale=1.0, end=0.5)
    found = [run(Beam(size=6, length_penalty=alpha), decoder, EIGHT, 8) for alpha in (0.0, 1.0, 3.0)]
    lengths = [sum(len(h.ids) for h in one) for one in found]
    assert lengths[0] < lengths[1] < lengths[2]


def test_equal_scores_go_to_the_lower_id() -> None:
    flat = FormulaDecoder(vocab_size=50, table=torch.zeros(50))
    for search in (Greedy(), Beam(size=3, length_penalty=0.0)):
        assert {tuple(h.ids) for h in run(search, flat, EIGHT, max_new=2)} <= {(0, 0), ()}
    flat.table = torch.tensor([0.0, 0.0] + [5.0] * 48)
    assert [h.ids for h in run(Greedy(), flat, row(EIGHT, 0), max_new=3)] == [[2, 2, 2]]
    assert [h.ids for h in run(Beam(size=4, length_penalty=0.0), flat, row(EIGHT, 0), max_new=3)] == [[2, 2, 2]]


SEARCHES = [
    Greedy(),
    Beam(size=3, length_penalty=0.6),
    Sample(temperature=1.3, top_k=None, top_p=1.0, seed=4),
    Sample(temperature=0.7, top_k=3, top_p=0.9, seed=4),
]


@pytest.mark.parametrize("search", SEARCHES, ids=["greedy", "beam", "sample", "top"])
def test_a_row_is_the_same_alone_in_a_batch_and_with_more_padding(decoder: Decoder, search: Search) -> None:
    together = [with_end(h) for h in run(search, decoder, EIGHT)]
    assert together == [with_end(run(search, decoder, row(EIGHT, i))[0]) for i in range(8)]
    longer = Sequences(
        values=torch.nn.functional.pad(EIGHT.values, (0, 4), value=3), mask=torch.nn.functional.pad(EIGHT.mask, (0, 4))
    )
    if isinstance(decoder, FormulaDecoder):
        assert together == [with_end(h) for h in run(search, decoder, longer)]
    assert together == [with_end(h) for h in run(search, decoder, EIGHT)]  # nor does a second call change it


def many(n: int) -> Sequences:
    values = torch.arange(n).unsqueeze(1)
    return Sequences(values=values, mask=torch.ones_like(values, dtype=torch.bool))


TABLE = torch.tensor([0.1, 0.05, 0.4, 0.2, 0.15, 0.1]).log()


def frequencies(n: int = 20000, **arguments: float | int | None) -> list[float]:
    settings: dict = {"temperature": 1.0, "top_k": None, "top_p": 1.0, "seed": 0} | arguments
    found = run(Sample(**settings), FormulaDecoder(vocab_size=6, table=TABLE), many(n), max_new=1)
    counts = Counter(with_end(h)[0] for h in found)
    return [counts[i] / n for i in range(6)]


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ({}, [0.1, 0.05, 0.4, 0.2, 0.15, 0.1]),
        ({"temperature": 0.5}, [p / 0.25 for p in (0.01, 0.0025, 0.16, 0.04, 0.0225, 0.01)]),
        ({"top_k": 2}, [0, 0, 2 / 3, 1 / 3, 0, 0]),
        ({"top_p": 0.59}, [0, 0, 2 / 3, 1 / 3, 0, 0]),
        ({"top_p": 0.61}, [0, 0, 0.4 / 0.75, 0.2 / 0.75, 0.15 / 0.75, 0]),
        ({"top_k": 3, "top_p": 0.5}, [0, 0, 1, 0, 0, 0]),  # 0.4 of the 0.75 that are left is more than half
    ],
)
def test_samples_have_the_frequencies_of_the_distribution(arguments: dict[str, float], expected: list[float]) -> None:
    total = sum(expected)
    for found, p in zip(frequencies(**arguments), [e / total for e in expected], strict=True):
        assert abs(found - p) <= 4 * math.sqrt(p * (1 - p) / 20000)


def test_another_seed_is_another_sample_and_global_chance_is_left_alone() -> None:
    decoder = FormulaDecoder(vocab_size=9, scale=0.5)
    state = torch.get_rng_state()
    one, two = (run(Sample(temperature=1.0, top_k=None, top_p=1.0, seed=s), decoder, many(50)) for s in (0, 1))
    assert [h.ids for h in one] != [h.ids for h in two]
    assert torch.equal(state, torch.get_rng_state())


def test_a_token_of_logit_minus_infinity_is_never_chosen() -> None:
    def without_two(states: Tensor) -> Tensor:
        return states.index_fill(1, torch.tensor([2]), -torch.inf)

    decoder = FormulaDecoder(vocab_size=6, table=TABLE)
    for search in SEARCHES:
        found = search(decoder, without_two, many(200), bos=BOS, eos=EOS, max_new=3)
        assert not any(2 in h.ids for h in found)


def test_a_diverged_network_still_gives_outputs() -> None:
    nan = FormulaDecoder(vocab_size=6, table=torch.full((6,), torch.nan))
    for search in SEARCHES:
        assert len(run(search, nan, EIGHT)) == 8


def test_finished_rows_leave_the_batch() -> None:
    seen: list[int] = []

    class Counting(FormulaDecoder):
        def decode(self, target: Sequences, before):  # type: ignore[no-untyped-def]
            seen.append(len(target.values))
            return super().decode(target, before)

    for search, per_row in ((Greedy(), 1), (Beam(size=2, length_penalty=0.0), 2)):
        seen.clear()
        run(search, Counting(vocab_size=V), EIGHT, max_new=12)
        assert seen[0] == 8 * per_row
        assert seen[-1] < seen[0] / 2
        assert seen == sorted(seen, reverse=True)


def test_what_moves_in_a_cache_is_all_from_the_first_difference_on() -> None:
    """Equal tokens behind a difference have other states."""
    before = torch.tensor([[3, 4, 5], [3, 6, 5], [7, 7, 7]])
    origin = torch.tensor([1, 1, 2])
    moves = _moves(before, before[origin], origin)
    assert list(zip(moves.to.tolist(), moves.of.tolist(), moves.back.tolist(), strict=True)) == [(0, 1, 2), (0, 1, 1)]


def test_at_least_one_token_must_be_allowed() -> None:
    with pytest.raises(ValueError, match="max_new: 0"):
        run(Greedy(), FormulaDecoder(vocab_size=V), EIGHT, max_new=0)


@pytest.mark.parametrize("name", ["decoder_only", "encoder_decoder", "t5", "llama", "lstm", "gru", "s4d"])
def test_real_decoders_give_the_loop_of_argmax_and_the_same_beams_in_any_batch(name: str) -> None:
    """The states are logits of as many tokens as the encoder is wide, sharpened so that no two are all but equal."""
    case = Case(compose_node("encoder", name, changes={"dim": 16}), "ids")
    decoder = case.decoder
    bias = torch.sin(torch.arange(16.0) * 7)

    def logits(states: Tensor) -> Tensor:
        return 3 * states + bias

    source = case.draw([9, 1, 4, 12, 5])
    found = Greedy()(decoder, logits, source, bos=BOS, eos=EOS, max_new=6)
    by_hand = []
    for i in range(5):
        ids: list[int] = []
        while len(ids) < 6 and EOS not in ids:
            target = torch.tensor([[BOS, *ids]])
            whole = Sequences(values=target, mask=torch.ones_like(target, dtype=torch.bool))
            with torch.no_grad():
                states = decoder.decode(whole, decoder.prefill(row(source, i)))
            ids.append(int(logits(states.values[0, -1]).argmax()))
        by_hand.append(ids)
    assert [with_end(h) for h in found] == by_hand
    beam = Beam(size=3, length_penalty=0.6)
    together = beam(decoder, logits, source, bos=BOS, eos=EOS, max_new=6)
    alone = [beam(decoder, logits, row(source, i), bos=BOS, eos=EOS, max_new=6)[0] for i in range(5)]
    assert [with_end(h) for h in together] == [with_end(h) for h in alone]
    for i, h in enumerate(together):
        ids = with_end(h)
        target = torch.tensor([[BOS, *ids[:-1]]])
        whole = Sequences(values=target, mask=torch.ones_like(target, dtype=torch.bool))
        with torch.no_grad():
            logp = logits(decoder.decode(whole, decoder.prefill(row(source, i))).values[0]).log_softmax(1)
        total = float(logp.gather(1, torch.tensor(ids).unsqueeze(1)).sum())
        assert h.score == pytest.approx(total / ((5 + len(ids)) / 6) ** 0.6, abs=1e-4)
