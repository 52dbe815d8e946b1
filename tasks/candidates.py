"""What tasks share that choose among the candidate responses of a dialogue: reading, counting, ranks."""
# A candidates of a row, B batch, L positions, N rows of a split

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.base import Accounting, Task
from tasks.data.base import SPLITS, DataError, DataSet, Example
from tasks.metrics.base import Metric
from tasks.metrics.ranking import ranks_of
from tasks.padding import Ragged
from tasks.tokenizers import Tokenizer

TOP = 10  # candidates that a prediction names


class CandidateTask(Task):
    """`source` of an example is (turns, candidates), `target` the text of the candidate that fits; every row of a split
    has equally many.

    A prediction is {"rank": of the fitting candidate among the row's own, ties by mean, copies of it left out; "top":
    places of the best ten in the list of candidates}. Raises DataError for a target that is not among the candidates
    and for rows of unequal numbers of candidates.
    """

    rules = frozenset({"random"})

    def __init__(self, *, data: DataSet, tokenizer: Tokenizer, metrics: list[Metric]) -> None:
        super().__init__(data=data, metrics=metrics)
        self.tokenizer = tokenizer
        self.contexts: dict[str, Ragged] = {}  # split -> ids of each row's context
        self.context_numbers: dict[str, NDArray[np.int64]] = {}  # split -> (N,), equal for equal contexts
        self.responses: dict[str, Ragged] = {}  # split -> ids of each different response
        self.choices: dict[str, NDArray[np.int64]] = {}  # split -> (N, A), places in responses
        self.true: dict[str, NDArray[np.int64]] = {}  # split -> (N,), the fitting one's place in choices
        self.truncated: dict[str, int] = {}

    @abstractmethod
    def frame_context(self, turns: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], bool]:
        """Ids of a context as they are fed, from those of its turns; True where they were cut."""

    @abstractmethod
    def frame_response(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], bool]:
        """Ids of a response as they are fed; True where they were cut."""

    def prepare(self) -> None:
        """Fit the tokeniser on contexts and candidates of the training split, encode all."""
        for split in SPLITS:
            _check(split, self.examples[split])
        texts = [text for example in self.examples["train"] for side in example.source for text in side]
        self.tokenizer.fit(list(dict.fromkeys(texts)))
        for split in SPLITS:
            self._encode(split)
        size, vocabulary = self.tokenizer.vocab_size, self.tokenizer.vocabulary
        self.spec = replace(self.outline(), vocab_size=size, vocabulary=vocabulary)

    def _encode(self, split: str) -> None:
        examples = self.examples[split]
        turns = iter(self.tokenizer.encode([turn for e in examples for turn in e.source[0]]))
        contexts = [self.frame_context([next(turns).ids for _ in e.source[0]]) for e in examples]
        texts = list(dict.fromkeys(text for e in examples for text in e.source[1]))
        places = {text: place for place, text in enumerate(texts)}
        responses = [self.frame_response(text.ids) for text in self.tokenizer.encode(texts)]
        choices = np.array([[places[text] for text in e.source[1]] for e in examples], dtype=np.int64)
        cut_R, cut_N = (np.array([cut for _, cut in side], dtype=bool) for side in (responses, contexts))
        numbers: dict[tuple[str, ...], int] = {}
        self.context_numbers[split] = np.array([numbers.setdefault(tuple(e.source[0]), len(numbers)) for e in examples])
        self.contexts[split] = Ragged([ids for ids, _ in contexts], np.int64)
        self.responses[split] = Ragged([ids for ids, _ in responses], np.int64)
        self.choices[split] = choices
        self.true[split] = np.array([e.source[1].index(e.target) for e in examples], dtype=np.int64)
        self.truncated[split] = int((cut_N | cut_R[choices].any(1)).sum())

    def accounting(self, split: str) -> Accounting:
        """Counts; a row is truncated if its context or any of its candidates was cut."""
        positions = int(self.lengths(split).sum())
        number = len(self.choices[split])
        return Accounting(examples=number, positions=positions, truncated=self.truncated[split], dropped=0)

    def trivial(self, rule: str, split: str, seed: int) -> dict[int, Any]:
        """`random`: an order of the candidates by chance."""
        if rule not in self.rules:
            return super().trivial(rule, split, seed)
        scores = np.random.default_rng([seed, SPLITS.index(split)]).random(self.choices[split].shape)
        return dict(enumerate(ranked(scores, self.true[split])))


def ranked(scores: NDArray[np.floating[Any]], true: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Predictions from scores (N, A), -inf for what is left out, and the place of the fitting candidate (N,)."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :TOP].tolist()
    return [{"rank": rank, "top": top} for rank, top in zip(ranks_of(scores, true).tolist(), order, strict=True)]


def _check(split: str, examples: Sequence[Example]) -> None:
    choices = len(examples[0].source[1])
    for row, example in enumerate(examples):
        turns, candidates = example.source
        if not turns or len(candidates) != choices:
            raise DataError(f"{split} row {row}: {len(turns)} turns, {len(candidates)} candidates; need 1, {choices}")
        if example.target not in candidates:
            raise DataError(f"{split} row {row}: the target {example.target[:40]!r} is not among its candidates")
