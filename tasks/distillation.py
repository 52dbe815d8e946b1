"""Sequence to sequence taught by another model: what it would say next, on outputs that the pupil makes itself."""
# B rows, L source positions, T target positions, M of them that are real, V vocabulary

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Unpack

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from encoders.base import Decoder, Encoder, Sequences, States
from tasks.base import Batch, Output, Task
from tasks.search import Sample, Search
from tasks.sequence_to_sequence import Arguments, SequenceToSequence, SequenceToSequenceBatch


class Distillation(SequenceToSequence):
    """Training's loss is alpha KL(teacher || pupil) + (1 - alpha) CE(target); all else is SequenceToSequence's.

    As Return of the Encoder does (arXiv 2501.16273; microsoft/encoder-decoder-slm@b306bae): the pupil draws an answer y
    for each source at `temperature` from the `top_k` most probable tokens (`samples: own`; `targets`: y is the target),
    both models read source and y, and the forward KL of their next-token distributions, at temperature 1, is a mean
    over the tokens of y and its end. The official one counts padding, too; answers are drawn at each step here, and the
    first distribution of a teacher is that after BOS, there that after the source, as its teacher was trained so. A
    teacher is any Decoder of the same vocabulary: a run before this one (`pretrain.teacher`), which `learn_from` gets;
    that it reads source and target in one causal sequence, or in two, is its own affair. At alpha 0 none is needed.
    """

    has_teacher: ClassVar[bool] = True

    def __init__(
        self,
        *,
        search: Search | None,
        alpha: Annotated[float, Field(ge=0, le=1)],
        samples: Literal["own", "targets"],
        temperature: Annotated[float, Field(gt=0)],
        top_k: Annotated[int, Field(gt=0)] | None,
        **rest: Unpack[Arguments],
    ) -> None:
        super().__init__(search=search, **rest)
        self.alpha, self.samples, self.temperature, self.top_k = alpha, samples, temperature, top_k
        self._teacher: tuple[Decoder, SequenceToSequence] | None = None  # in a tuple: none of this task's parameters

    @property
    def needs_teacher(self) -> bool:
        """Whether it can't train without."""
        return self.alpha > 0

    def learn_from(self, encoder: Encoder, task: Task) -> None:
        """Take a trained Decoder and the task whose head it has. Raises ValueError for another vocabulary."""
        if not isinstance(encoder, Decoder) or not isinstance(task, SequenceToSequence):
            raise ValueError(f"pretrain.teacher: {type(encoder).__name__} of {type(task).__name__} makes no sequences")
        ids = list(range(self.tokenizer.vocab_size))
        if task.tokenizer.vocab_size != len(ids) or task.tokenizer.decode(ids) != self.tokenizer.decode(ids):
            raise ValueError(
                f"pretrain.teacher: has a vocabulary of {task.tokenizer.vocab_size} ids, not the same as the pupil's"
                f" {len(ids)}; give both one tokenizer (tasks.tokenizers.FittedOn)"
            )
        self._teacher = (encoder.eval().requires_grad_(False), task.eval().requires_grad_(False))

    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        """Outside training, and without a teacher, as SequenceToSequence."""
        if not self.training or not self.alpha:
            return super().forward(encoder, batch)
        assert isinstance(batch, SequenceToSequenceBatch)
        assert isinstance(encoder, Decoder)
        if self._teacher is None:
            raise ValueError("task.alpha: above 0, without a teacher; give pretrain.teacher, or alpha 0")
        before = encoder.prefill(batch.source)
        states = encoder.decode(batch.target, before)
        logits_MV = self.head(states.values[batch.target.mask], encoder).float()
        label_M = batch.label[batch.target.mask]
        gold = self.head.loss(logits_MV, label_M, encoder, smoothing=self.label_smoothing)
        read = batch.target
        if self.samples == "own":
            read = self.drawn(encoder, batch.source)
            own = encoder.decode(read, before)
            pupil_MV = self.head(own.values[read.mask], encoder).float()
        else:
            pupil_MV = logits_MV
        loss = self.alpha * kl(self.taught(batch.source, read), pupil_MV) + (1 - self.alpha) * gold
        loss = sum((*before.losses.values(), *states.losses.values()), loss)
        return Output(loss=loss, items=len(logits_MV))

    @torch.no_grad()
    def taught(self, source: Sequences, read: Sequences) -> Tensor:
        """The teacher's logits (M, V) after each token that is read."""
        assert self._teacher is not None
        teacher, theirs = self._teacher
        teacher.to(source.values.device)
        theirs.to(source.values.device)
        states: States = teacher.decode(read, teacher.prefill(source))
        logits_MV: Tensor = theirs.head(states.values[read.mask], teacher)
        return logits_MV.float()

    @torch.no_grad()
    def drawn(self, encoder: Decoder, source: Sequences) -> Sequences:
        """What the pupil says, as it would be fed: BOS and y without its end; the pupil in evaluation mode for it."""
        modes = [(module, module.training) for module in encoder.modules()]
        encoder.eval()
        seed = int(torch.randint(2**31, ()))
        search, wanted = Sample(temperature=self.temperature, top_k=self.top_k, top_p=1.0, seed=seed), self.search
        try:
            self.search = search
            found = self.found(encoder, source)
        finally:
            self.search = wanted
            for module, mode in modes:
                module.training = mode
        specials = self.tokenizer.specials
        rows = [[specials.bos, *(h.ids if h.finished else h.ids[:-1])] for h in found]
        lengths = torch.tensor([len(row) for row in rows])
        longest = int(lengths.max())
        values = torch.tensor([[*row, *([specials.pad] * (longest - len(row)))] for row in rows])
        mask = torch.arange(longest) < lengths.unsqueeze(1)
        return Sequences(values=values.to(source.values.device), mask=mask.to(source.values.device))


def kl(teacher_MV: Tensor, pupil_MV: Tensor) -> Tensor:
    """() forward KL(teacher || pupil), the mean over positions, temperature 1."""
    return F.kl_div(pupil_MV.log_softmax(1), teacher_MV.log_softmax(1), reduction="batchmean", log_target=True)
