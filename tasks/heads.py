"""Output heads over a vocabulary: states to logits, by weights of their own or by the encoder's input table."""
# M states, K ids of each, D encoder.dim, V vocabulary

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.base import Encoder


class VocabularyHead(nn.Module):
    """States (..., D) -> logits (..., V), one linear map.

    `tie`: its weights are the encoder's input table (Press and Wolf 2017, arXiv 1608.05859), read at each call, so that
    they stay one tensor however the encoder is moved or wrapped; only the bias is the head's own. An encoder of several
    `outputs` has the log-probabilities that it makes of their logits, all by these weights. Raises ValueError if the
    encoder has no such table or its size is not the vocabulary's.
    """

    def __init__(self, *, encoder: Encoder, vocab_size: int, tie: bool) -> None:
        super().__init__()
        self.tie = tie
        dim = encoder.dim // encoder.outputs
        if tie:
            table = encoder.token_embedding
            if table is None:
                raise ValueError(f"task.tie: {type(encoder).__name__} has no input table to tie to; set task.tie=false")
            if tuple(table.shape) != (vocab_size, dim):
                raise ValueError(
                    f"task.tie: the input table is {tuple(table.shape)}, the output needs {(vocab_size, dim)}"
                )
            self.bias = nn.Parameter(torch.zeros(vocab_size))
        else:
            self.linear = nn.Linear(dim, vocab_size)

    def forward(self, states: Tensor, encoder: Encoder) -> Tensor:
        """Logits of the states, which come from `encoder`."""
        if encoder.outputs == 1:
            return F.linear(states, *self._weights(encoder))
        parts = states.chunk(encoder.outputs, dim=-1)
        return encoder.fuse(torch.stack([F.linear(part, *self._weights(encoder)) for part in parts]), states)

    def loss(self, scores_MV: Tensor, label_M: Tensor, encoder: Encoder, *, smoothing: float) -> Tensor:
        """Mean cross-entropy of what `forward` gave, in nats; in training log-probabilities that an encoder has fused
        are taken as they are, else renormalised.
        """
        if encoder.outputs == 1 or not self.training:
            return F.cross_entropy(scores_MV, label_M, label_smoothing=smoothing)
        return (1 - smoothing) * F.nll_loss(scores_MV, label_M) - smoothing * scores_MV.mean()

    def some(self, states_MD: Tensor, ids_MK: Tensor, encoder: Encoder) -> Tensor:
        """Logits (M, K) of some ids alone, K for each state: what `forward` says of them.

        Raises ValueError for an encoder of several outputs, whose log-probabilities are of all ids.
        """
        if encoder.outputs > 1:
            raise ValueError(
                f"{type(encoder).__name__} fuses log-probabilities of all ids; a sampled loss has some of them"
            )
        weight, bias = self._weights(encoder)
        logits_MK = torch.einsum("md,mkd->mk", states_MD, F.embedding(ids_MK, weight))
        return logits_MK + bias[ids_MK]

    def _weights(self, encoder: Encoder) -> tuple[Tensor, Tensor]:
        if not self.tie:
            return self.linear.weight, self.linear.bias
        table = encoder.token_embedding
        assert table is not None
        return table, self.bias
