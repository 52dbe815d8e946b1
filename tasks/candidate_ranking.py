"""Candidate ranking: the candidates of a dialogue in one pass, by pairs, or apart; four ways to score in one task."""
# B batch, A candidates of a row, U rows of candidates that are read, L positions, D width, M codes, V vocabulary

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from encoders.base import Encoder, InputSpec, Sequences, States
from tasks.base import Batch, Output
from tasks.candidates import CandidateTask, ranked
from tasks.data.base import SPLITS, DataSet
from tasks.heads import VocabularyHead
from tasks.masking import Masking
from tasks.metrics.base import Metric
from tasks.padding import pad
from tasks.readout import auxiliary, linear, pool
from tasks.sources import STAND_IN
from tasks.tokenizers import Tokenizer

SPEAKERS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateBatch(Batch):
    """Contexts and what is chosen among for each."""

    source: Sequences  # packed: (B, L), a context and its candidates; cross: (B * A, L), pairs; else (B, L), contexts
    part: Tensor  # as source's mask, int64: 0 at the context and at padding, then 1 .. A (cross: 1)
    candidates: Sequences | None  # bi, poly: (U, L), one at a row
    at: Tensor  # (B, A) int64, bi, poly: which of them are the row's
    true: Tensor  # (B,) int64, place of the fitting one among the row's
    counted: Tensor  # (B, A) bool, False: not to be taken for wrong, nor for the fitting one
    place: Tensor  # (B, A) int64, of each in the example's list


class CandidateRanking(CandidateTask):
    """Cross-entropy of the fitting candidate among the row's A, by one of four readings of context c, candidates r_i:

      packed  one pass over [c, r_1, ..., r_A]; s_i = w h_i + b, h_i the mean state of r_i (Song et al. 2023, arXiv
              2106.01263). Needs an encoder that reads the stream "part": 0 at the context, i at candidate i.
      cross   a pass for each [c, r_i]; scored alike. The same as packed with one candidate.
      bi      c and each r_i by themselves; s_i = <mean of c, mean of r_i> / sqrt(D).
      poly    as bi, but M learnt codes attend to the states of c, and r_i to what they found; the inner product is with
              that (Humeau et al. 2020, arXiv 1905.01969, section 4.4, its "learnt codes"; attention is not scaled).

    The sqrt(D) is ours: a temperature at which training begins well. A context is BOS, its turns, SEP; its first turns
    are left out until `max_length` ids are enough, of a single turn too long the last ids stay. A response is BOS, its
    last ids, SEP: `max_response_length` at most. With `speakers` each turn begins with the id of one of two, in turns,
    so that the last is always the second's: two more ids than the tokeniser's; else SEP stands between turns.

    Candidates stand in a fixed random order, so that places say nothing. With `in_batch` > 0 a training row's own
    negatives are not used: the batch is cut into groups of in_batch + 1 rows, each row of which chooses among the
    fitting responses of the group (the official code's group is the batch). Copies of the fitting one, and other
    rows' where the context is the same, count neither as right nor as wrong.

    `masked_weight` times the masked language model's loss is added in training (`masked_share` of the tokens, hidden in
    the same pass, so that ranking sees them hidden). Its output is one linear map, where BERT's has a layer before it.
    `parts`: whether the stream "part" is fed by the other readings too (in bi and poly it tells the sides apart).
    """

    version = 1
    needs_all_positions = True

    def __init__(
        self,
        *,
        data: DataSet,
        tokenizer: Tokenizer,
        max_length: Annotated[int, Field(gt=2)],
        max_response_length: Annotated[int, Field(gt=2)],
        speakers: bool,
        reading: Literal["packed", "cross", "bi", "poly"],
        parts: bool,
        codes: Annotated[int, Field(gt=0)],
        in_batch: Annotated[int, Field(ge=0)],
        masked_weight: Annotated[float, Field(ge=0)],
        masked_share: Annotated[float, Field(gt=0, lt=1)],
        tie: bool,
        metrics: list[Metric],
    ) -> None:
        super().__init__(data=data, tokenizer=tokenizer, metrics=metrics)
        if reading == "packed" and not parts:
            raise ValueError("parts: false, but reading packed needs an encoder that is told the parts; use true")
        self.max_length, self.max_response_length, self.speakers = max_length, max_response_length, speakers
        self.reading, self.parts, self.codes, self.in_batch = reading, parts, codes, in_batch
        self.masked_weight, self.masked_share, self.tie = masked_weight, masked_share, tie
        self.places: dict[str, NDArray[np.int64]] = {}  # split -> (N, A), of each of `choices` in the example's list

    def outline(self) -> InputSpec:
        """The spec with a stand-in vocabulary; positions are those of a context and one response."""
        length = self.max_length + self.max_response_length
        part = InputSpec(max_length=length, vocab_size=1 + self._most())
        return InputSpec(max_length=length, vocab_size=STAND_IN, streams={"part": part} if self.parts else {})

    def _most(self) -> int:
        """Candidates in one pass, at most."""
        if self.reading != "packed":
            return 1
        return max(self.in_batch + 1, *(int(choices.shape[1]) for choices in self.choices.values()), 1)

    # -- data ----------------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Encode, then give the candidates of each row an order of their own."""
        super().prepare()
        if self.speakers and self.tokenizer.vocabulary is not None:
            raise ValueError("task.speakers: true, but a checkpoint's vocabulary has no ids for them; use false")
        size, specials = self.tokenizer.vocab_size, self.tokenizer.special_ids - {self.tokenizer.specials.unk}
        extra = range(size, size + SPEAKERS * self.speakers)
        self.spec = replace(self.spec, vocab_size=size + len(extra))
        self.masking = Masking(
            special={*specials, *extra},
            vocab_size=size + len(extra),
            mask=self.tokenizer.specials.mask,
            share=self.masked_share,
        )
        for split in SPLITS:
            choices = self.choices[split]
            order = np.random.default_rng(SPLITS.index(split)).random(choices.shape).argsort(1, kind="stable")
            self.choices[split], self.places[split] = np.take_along_axis(choices, order, axis=1), order
            self.true[split] = (order == self.true[split][:, None]).argmax(1)

    def frame_context(self, turns: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], bool]:
        """BOS, the last whole turns that have room, SEP."""
        specials, room = self.tokenizer.specials, self.max_length - 2
        first = self.tokenizer.vocab_size
        pieces: list[NDArray[np.int64]] = []
        for back, turn in enumerate(reversed(turns)):
            speaker = [first + (back + 1) % SPEAKERS] if self.speakers else []
            between = [] if self.speakers or not back else [specials.sep]
            piece = np.array([*speaker, *turn, *between], dtype=np.int64)
            if pieces and sum(map(len, pieces)) + len(piece) > room:
                break
            pieces.insert(0, piece)
        ids = np.concatenate(pieces)
        cut = len(pieces) < len(turns) or len(ids) > room
        ids = ids[-room:] if len(ids) else np.array([specials.unk])
        return np.array([specials.bos, *ids, specials.sep], dtype=np.int64), cut

    def frame_response(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], bool]:
        """BOS, the last ids, SEP."""
        specials, room = self.tokenizer.specials, self.max_response_length - 2
        kept = ids[-room:] if len(ids) else [specials.unk]
        return np.array([specials.bos, *kept, specials.sep], dtype=np.int64), len(ids) > room

    def lengths(self, split: str) -> NDArray[np.int64]:
        """Positions that are fed for each row, (N,); with `in_batch`, as if all responses were as long as its own."""
        chosen, responses = self.choices[split], self.responses[split].lengths
        candidates_N, number = responses[chosen].sum(1), chosen.shape[1]
        if split == "train" and self.in_batch:
            number = self.in_batch + 1
            own_N = np.take_along_axis(responses[chosen], self.true[split][:, None], axis=1).squeeze(1)
            candidates_N = own_N * (1 if self.reading in ("bi", "poly") else number)
        lengths: NDArray[np.int64] = candidates_N + self.contexts[split].lengths * (
            number if self.reading == "cross" else 1
        )
        return lengths

    def collate(self, split: str, rows: NDArray[np.int64]) -> CandidateBatch:
        """What the reading feeds, padded."""
        own_BA, true_B = self.choices[split][rows], self.true[split][rows]
        gold_B = np.take_along_axis(own_BA, true_B[:, None], axis=1).squeeze(1)
        if split == "train" and self.in_batch:
            size = min(self.in_batch + 1, len(rows))
            start_B = np.minimum(np.arange(len(rows)) // size * size, len(rows) - size)
            at_BA = start_B[:, None] + np.arange(size)
            true_B, place_BA, choices_BA, read_U = np.arange(len(rows)) - start_B, at_BA, gold_B[at_BA], gold_B
            number_B = self.context_numbers[split][rows]
            wrong_BA = (choices_BA != gold_B[:, None]) & (number_B[at_BA] != number_B[:, None])
        else:
            place_BA, choices_BA, read_U = self.places[split][rows], own_BA, own_BA.reshape(-1)
            at_BA = np.arange(own_BA.size).reshape(own_BA.shape)
            wrong_BA = own_BA != gold_B[:, None]
        counted_BA = wrong_BA | (np.arange(wrong_BA.shape[1]) == true_B[:, None])
        source, part = self._source(split, rows, choices_BA)
        return CandidateBatch(
            index=torch.from_numpy(rows),
            source=source,
            part=part,
            candidates=self._responses(split, read_U) if self.reading in ("bi", "poly") else None,
            at=torch.from_numpy(at_BA),
            true=torch.from_numpy(true_B),
            counted=torch.from_numpy(counted_BA),
            place=torch.from_numpy(place_BA),
        )

    def _source(self, split: str, rows: NDArray[np.int64], choices_BA: NDArray[np.int64]) -> tuple[Sequences, Tensor]:
        responses = [[self.responses[split][choice] for choice in row] for row in choices_BA.tolist()]
        contexts = [self.contexts[split][row] for row in rows.tolist()]
        pairs = zip(contexts, responses, strict=True)
        if self.reading == "packed":
            pieces = [[context, *row] for context, row in pairs]
        elif self.reading == "cross":
            pieces = [[context, one] for context, row in pairs for one in row]
        else:
            pieces = [[context] for context in contexts]
        source = pad(np.concatenate(row) for row in pieces)
        part = pad(np.repeat(np.arange(len(row)), [len(piece) for piece in row]) for row in pieces)
        return self._told(source, part.values), part.values

    def _responses(self, split: str, responses: NDArray[np.int64]) -> Sequences:
        read = self.responses[split].sequences(responses)
        return self._told(read, read.mask.to(torch.int64))

    def _told(self, read: Sequences, part: Tensor) -> Sequences:
        """With the stream of parts, where it is fed."""
        return replace(read, streams={"part": Sequences(values=part, mask=read.mask)}) if self.parts else read

    # -- with an encoder -----------------------------------------------------------------------------------------
    def attach(self, encoder: Encoder) -> None:
        """A map to a score, or codes, or nothing; and the masked language model's output."""
        if self.reading in ("packed", "cross"):
            self.head = linear(encoder.dim, 1)
        if self.reading == "poly":
            self.code_table = nn.Parameter(torch.randn(self.codes, encoder.dim) / math.sqrt(encoder.dim))
        if self.masked_weight:
            assert self.spec.vocab_size is not None
            self.vocabulary_head = VocabularyHead(encoder=encoder, vocab_size=self.spec.vocab_size, tie=self.tie)

    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        """Mean cross-entropy over rows, in training with the masked tokens' mean; outside it a ranking of each row."""
        assert isinstance(batch, CandidateBatch)
        reads = [batch.source] if batch.candidates is None else [batch.source, batch.candidates]
        hidden = [self._hide(read) if self.training and self.masked_weight else (read, None) for read in reads]
        states = [encoder(read) for read, _ in hidden]
        scores_BA = self._scores(states, batch).float().masked_fill(~batch.counted, -torch.inf)
        loss = F.cross_entropy(scores_BA, batch.true)
        for one, read, (_, chosen) in zip(states, reads, hidden, strict=True):
            loss = auxiliary(loss, one)
            if chosen is not None:
                loss = loss + self._masked_loss(encoder, one, read, chosen) / len(reads)
        found: list[Any] = []
        if not self.training:
            found = ranked(scores_BA.cpu().numpy(), batch.true.cpu().numpy())
            for prediction, place_A in zip(found, batch.place.tolist(), strict=True):
                prediction["top"] = [place_A[i] for i in prediction["top"]]
        return Output(loss=loss, items=len(batch.index), predictions=found)

    def _scores(self, states: Sequence[States], batch: CandidateBatch) -> Tensor:
        """(B, A)."""
        if self.reading in ("packed", "cross"):
            number = batch.true.shape[0] if self.reading == "packed" else len(batch.part)
            h_BAD = part_means(states[0], batch.part, batch.at.numel() // number)
            scores_BA: Tensor = self.head(h_BAD).view(batch.at.shape)
            return scores_BA
        context, responses = states
        h_BAD = pool(responses, "mean")[batch.at]
        if self.reading == "bi":
            x_BAD = pool(context, "mean")[:, None]
        else:
            hidden_B1L = ~context.mask[:, None]
            w_BML = (self.code_table @ context.values.mT).masked_fill(hidden_B1L, -torch.inf).softmax(2)
            y_BMD = w_BML @ context.values
            x_BAD = (h_BAD @ y_BMD.mT).softmax(2) @ y_BMD
        return (x_BAD * h_BAD).sum(2) / math.sqrt(h_BAD.shape[2])

    def _hide(self, read: Sequences) -> tuple[Sequences, Tensor]:
        """Some tokens hidden, and which are asked for."""
        chosen, fate, other = torch.rand(3, *read.mask.shape, device=read.mask.device)
        asked = self.masking.choose(read.values, chosen, read.mask)
        return replace(read, values=self.masking.hide(read.values, asked, fate, other)), asked

    def _masked_loss(self, encoder: Encoder, states: States, read: Sequences, asked: Tensor) -> Tensor:
        logits_V = self.vocabulary_head(states.values[asked], encoder).float()
        return self.masked_weight * self.vocabulary_head.loss(logits_V, read.values[asked], encoder, smoothing=0.0)


def part_means(states: States, part_BL: Tensor, number: int) -> Tensor:
    """Mean state of parts 1 .. number, (B, number, D), of which none is at padding."""
    numbers_N1 = torch.arange(1, number + 1, device=part_BL.device)[:, None]
    of_BNL = (part_BL[:, None] == numbers_N1).to(states.values.dtype)
    return (of_BNL @ states.values) / of_BNL.sum(2, keepdim=True).clamp_min(1)
