"""Search: from a decoder's next-token distributions to one output, by greedy choice, beams or sampling."""
# B rows, K beams, V vocabulary, D width

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from encoders.base import Decoder, Moves, Sequences, States

Logits = Callable[[Tensor], Tensor]  # states (B, D) -> logits (B, V); -inf for a token that must not be chosen


@dataclass(frozen=True, kw_only=True, slots=True)
class Hypothesis:
    """One output."""

    ids: list[int]  # without begin and end
    score: float  # log probability of the ids (and the end, if it was reached); by beams: divided by its penalty
    finished: bool  # whether the end was reached before the longest length


class Search(ABC):
    """How outputs are found. Deterministic: the same weights and source give the same output, in any batch."""

    @torch.no_grad()
    def __call__(
        self, decoder: Decoder, logits: Logits, source: Sequences, *, bos: int, eos: int, max_new: int
    ) -> list[Hypothesis]:
        """The output for each row of `source`: at most `max_new` tokens, the end included."""
        if max_new < 1:
            raise ValueError(f"max_new: {max_new}; at least one token must be made")
        return self.run(decoder, logits, source, bos=bos, eos=eos, max_new=max_new)

    @abstractmethod
    def run(
        self, decoder: Decoder, logits: Logits, source: Sequences, *, bos: int, eos: int, max_new: int
    ) -> list[Hypothesis]:
        """As the call, whose gradients are off already."""


class _OneByOne(Search):
    """A single token per row and step, rows that are finished leaving the batch."""

    @abstractmethod
    def choose(self, logp_BV: Tensor, draws_B: Tensor) -> Tensor:
        """The next token of each row, (B,) int64. `draws_B` are uniform numbers of the row and step."""

    def draws(self, source: Sequences, max_new: int) -> Tensor:
        """Uniform numbers in [0, 1), (B, max_new), for a search that needs chance."""
        return torch.zeros(len(source.values), max_new)

    def run(
        self, decoder: Decoder, logits: Logits, source: Sequences, *, bos: int, eos: int, max_new: int
    ) -> list[Hypothesis]:
        """Token after token until every row has ended."""
        device, number = source.values.device, len(source.values)
        found: dict[int, Hypothesis] = {}
        draws_BT = self.draws(source, max_new).to(device)
        rows_B = torch.arange(number, device=device)  # of the source, for each row that is still in the batch
        tokens_BT = torch.full((number, max_new), eos, device=device)
        score_B = torch.zeros(number, device=device)
        ended_B = torch.zeros(number, dtype=torch.bool, device=device)
        states, token_B = decoder.prefill(source), torch.full((number,), bos, device=device)
        for step in range(max_new):
            states = _advance(decoder, token_B, states)
            logp_BV = _log_probabilities(logits, states)
            token_B = self.choose(logp_BV, draws_BT[:, step]).masked_fill(ended_B, eos)
            score_B += logp_BV.gather(1, token_B.unsqueeze(1)).squeeze(1).masked_fill(ended_B, 0.0)
            tokens_BT[:, step] = token_B
            ended_B |= token_B == eos
            left = len(ended_B) - int(ended_B.sum())
            if not left:
                break
            if 2 * left <= len(ended_B):  # copying a cache costs about a step: only when half of it can go
                found |= _hypotheses(rows_B, tokens_BT, score_B, ended_B, eos)
                keep = (~ended_B).nonzero().squeeze(1)
                token_B, states = token_B[keep], states.select(keep)
                rows_B, tokens_BT, draws_BT = rows_B[keep], tokens_BT[keep], draws_BT[keep]
                score_B, ended_B = score_B[keep], ended_B[keep]
        found |= _hypotheses(rows_B, tokens_BT, score_B, ended_B, eos)
        return [found[row] for row in range(number)]


def _hypotheses(rows_B: Tensor, tokens_BT: Tensor, score_B: Tensor, ended_B: Tensor, eos: int) -> dict[int, Hypothesis]:
    """What the rows have come to, by row of the source."""
    table = zip(rows_B.tolist(), tokens_BT.tolist(), score_B.tolist(), ended_B.tolist(), strict=True)
    return {
        row: Hypothesis(ids=ids[: ids.index(eos)] if end else ids, score=score, finished=end)
        for row, ids, score, end in table
    }


class Greedy(_OneByOne):
    """The most probable token at each step; of equals, the one with the lowest id."""

    def choose(self, logp_BV: Tensor, draws_B: Tensor) -> Tensor:
        """The first of the most probable tokens."""
        return logp_BV.max(1).indices  # of equals the first, which torch promises


class Sample(_OneByOne):
    """Draws from the distribution: at `temperature`, of the `top_k` most probable tokens, of those the nucleus `top_p`.

    The nucleus is the smallest set of most probable tokens that together have `top_p` (Holtzman et al. 2020,
    arXiv 1904.09751). Chance comes from a generator of its own, seeded by `seed` and the row's source: a row's output
    depends on neither the batch that it is in nor on what else draws random numbers.
    """

    def __init__(
        self,
        *,
        temperature: Annotated[float, Field(gt=0)],
        top_k: Annotated[int, Field(gt=0)] | None,
        top_p: Annotated[float, Field(gt=0, le=1)],
        seed: int,
    ) -> None:
        self.temperature, self.top_k, self.top_p, self.seed = temperature, top_k, top_p, seed

    def draws(self, source: Sequences, max_new: int) -> Tensor:
        """Uniform numbers (B, max_new), each row from its own generator on the CPU."""
        rows = []
        for values, mask in zip(source.values.cpu(), source.mask.cpu(), strict=True):
            digest = hashlib.sha256(str(self.seed).encode() + values[mask].numpy().tobytes()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
            rows.append(torch.rand(max_new, generator=generator))
        return torch.stack(rows)

    def choose(self, logp_BV: Tensor, draws_B: Tensor) -> Tensor:
        """By the inverse of the cumulated probabilities, sorted from the most probable down."""
        p_BV, ids_BV = (logp_BV / self.temperature).softmax(1).sort(dim=1, descending=True, stable=True)
        if self.top_k is not None:
            p_BV = p_BV[:, : self.top_k]
            p_BV = p_BV / p_BV.sum(1, keepdim=True)
        if self.top_p < 1:
            before_BV = p_BV.cumsum(1) - p_BV
            p_BV = p_BV.masked_fill(before_BV >= self.top_p, 0.0)
        upto_BV = p_BV.double().cumsum(1)
        index_B = (upto_BV <= draws_B.double().unsqueeze(1) * upto_BV[:, -1:]).sum(1, keepdim=True)
        last_B = (p_BV > 0).sum(1, keepdim=True) - 1
        return ids_BV.gather(1, torch.minimum(index_B, last_B)).squeeze(1)


class Beam(Search):
    """Beam search with the length penalty of GNMT (Wu et al. 2016, arXiv 1609.08144, eq. 14).

    A hypothesis is a sequence that has ended, or one of `max_new` tokens; its score is log P / ((5 + n) / 6)^alpha with
    n tokens, the end included. At each step a row keeps the `size` best open sequences; an end among the `size` best
    continuations finishes one. A row stops when `size` are finished, or when no open one can still beat the best. Equal
    scores are ordered by beam, then by token id. `size` 1 is greedy search.
    """

    def __init__(self, *, size: Annotated[int, Field(gt=0)], length_penalty: Annotated[float, Field(ge=0)]) -> None:
        self.size, self.length_penalty = size, length_penalty

    def run(
        self, decoder: Decoder, logits: Logits, source: Sequences, *, bos: int, eos: int, max_new: int
    ) -> list[Hypothesis]:
        """All rows side by side, B x K sequences at once; a row that stops leaves the batch."""
        device, size = source.values.device, self.size
        results: list[list[Hypothesis]] = [[] for _ in source.values]
        rows = list(range(len(results)))  # of the source, still searched
        spread = torch.arange(len(rows), device=device).repeat_interleave(size)
        states = decoder.prefill(source).select(spread)
        token_BK = torch.full((len(rows), size), bos, device=device)
        score_BK = torch.full((len(rows), size), -torch.inf, device=device)
        score_BK[:, 0] = 0.0
        past_BKT = torch.empty(len(rows), size, 0, dtype=torch.int64, device=device)
        for step in range(1, max_new + 1):
            states = _advance(decoder, token_BK.flatten(), states)
            logp_BKV = _log_probabilities(logits, states).view(len(rows), size, -1)
            vocabulary = logp_BKV.shape[2]
            all_BX = (score_BK.unsqueeze(2) + logp_BKV).flatten(1)
            best_BX, index_BX = _top(all_BX, min(2 * size, all_BX.shape[1]))
            beam_BX, next_BX = index_BX // vocabulary, index_BX % vocabulary
            open_BX = (next_BX != eos) & best_BX.isfinite()
            self._finish(results, rows, past_BKT, best_BX, beam_BX, open_BX, step)
            # the first `size` open ones, in order; where there are fewer, closed ones fill up with -inf
            pick_BK = (~open_BX).to(torch.int8).argsort(dim=1, stable=True)[:, :size]
            score_BK = best_BX.masked_fill(~open_BX, -torch.inf).gather(1, pick_BK)
            token_BK, beam_BK = next_BX.gather(1, pick_BK), beam_BX.gather(1, pick_BK)
            before_BKT = past_BKT
            past_BKT = past_BKT.gather(1, beam_BK.unsqueeze(2).expand(-1, -1, past_BKT.shape[2]))
            after_BKT = past_BKT
            past_BKT = torch.cat([past_BKT, token_BK.unsqueeze(2)], 2)
            if step == max_new:
                break
            going = self._going(results, rows, score_BK, max_new)
            if not going:
                return [max(found, key=_by_score) for found in results]
            keep = torch.tensor(going, device=device)
            origin = (keep.unsqueeze(1) * size + beam_BK[keep]).flatten()
            if len(going) < len(rows):
                states = states.select(origin)
            elif not torch.equal(origin, torch.arange(len(origin), device=device)):
                states = states.select(origin, moves=_moves(before_BKT.flatten(0, 1), after_BKT.flatten(0, 1), origin))
            rows = [rows[i] for i in going]
            token_BK, score_BK, past_BKT = token_BK[keep], score_BK[keep], past_BKT[keep]
        for row, past, scores in zip(rows, past_BKT.tolist(), score_BK.tolist(), strict=True):
            full = [] if len(results[row]) >= size else list(zip(past, scores, strict=True))
            penalty = self._penalty(max_new)
            results[row] += [Hypothesis(ids=ids, score=s / penalty, finished=False) for ids, s in full]
        return [max(found, key=_by_score) for found in results]

    def _penalty(self, length: int) -> float:
        return float(((5 + length) / 6) ** self.length_penalty)

    def _finish(
        self,
        results: list[list[Hypothesis]],
        rows: list[int],
        past_BKT: Tensor,
        best_BX: Tensor,
        beam_BX: Tensor,
        open_BX: Tensor,
        step: int,
    ) -> None:
        """Add to `results` the sequences that end at this step among the `size` best continuations."""
        ends = (~open_BX & best_BX.isfinite())[:, : self.size].nonzero().tolist()
        for b, x in ends:
            ids = past_BKT[b, int(beam_BX[b, x])].tolist()
            score = float(best_BX[b, x]) / self._penalty(step)
            results[rows[b]].append(Hypothesis(ids=ids, score=score, finished=True))

    def _going(self, results: list[list[Hypothesis]], rows: list[int], score_BK: Tensor, max_new: int) -> list[int]:
        """Which rows go on: too few are finished, and an open one may still beat the best (log P only falls)."""
        bounds = (score_BK.amax(1) / self._penalty(max_new)).tolist()
        going = []
        for i, row in enumerate(rows):
            found = results[row]
            if not found or (len(found) < self.size and bounds[i] > max(h.score for h in found)):
                going.append(i)
        return going


def _moves(before_BT: Tensor, after_BT: Tensor, origin_B: Tensor) -> Moves:
    """What a cache has to move for rows of T tokens: all from the first one on that differs.

    The last of a cache is of the last token: it was read when the next one was chosen.
    """
    differ_BT = (before_BT != after_BT).cumsum(1) > 0  # states are of all tokens up to theirs
    to_N, place_N = differ_BT.nonzero().unbind(1)
    return Moves(to=to_N, of=origin_B[to_N], back=differ_BT.shape[1] - place_N)


def _advance(decoder: Decoder, token_B: Tensor, before: States) -> States:
    token_B1 = token_B.unsqueeze(1)
    return decoder.decode(Sequences(values=token_B1, mask=torch.ones_like(token_B1, dtype=torch.bool)), before)


def _log_probabilities(logits: Logits, states: States) -> Tensor:
    """(B, V) float32. NaN of a diverged network becomes the least number: its loss, not a crash here, tells of it."""
    raw_BV = logits(states.values[:, -1]).float()
    if raw_BV.device.type == "cpu":  # NaN or +inf anywhere is NaN everywhere: a look at one column spares a pass
        logp_BV = raw_BV.log_softmax(1)
        if not bool(logp_BV[:, 0].isnan().any()):
            return logp_BV
    return raw_BV.nan_to_num(nan=torch.finfo(torch.float32).min, neginf=-torch.inf).log_softmax(1)


def _top(scores_BX: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The `number` highest of each row, highest first, equal ones in order of position (topk promises no order)."""
    more = min(number + 1, scores_BX.shape[1])
    best_BX, index_BX = scores_BX.topk(more, dim=1)
    equal = (best_BX[:, 1:] == best_BX[:, :-1]) & best_BX[:, 1:].isfinite()
    if bool(equal.any()):
        best_BX, index_BX = scores_BX.sort(dim=1, descending=True, stable=True)
    return best_BX[:, :number], index_BX[:, :number]


def _by_score(hypothesis: Hypothesis) -> float:
    return hypothesis.score
