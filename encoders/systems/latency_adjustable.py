"""An encoder whose layers let go of states, at a speed set after training (Kachuee and Sharifkhani, 2201.03327)."""
# B batch, L positions, N states of a layer, K states kept, D width, H heads

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Unpack

import torch
from pydantic import Field
from torch import Tensor, nn

from encoders.base import Encoder, InputSpec, Sequences, States
from encoders.blocks.layer import Layer
from encoders.blocks.masks import see_real, sight
from encoders.blocks.stack import initialise_tables
from encoders.blocks.transformer import Arguments, embedding_of, stack_of
from encoders.systems import elimination

MOMENTUM = 0.01  # of the running means


class LatencyAdjustable(Encoder):
    """Each layer keeps, after its attention and before its feed-forward, the states that are attended to most.

    A RECONSTRUCTION: of the paper only abstracts (v1 to v9) were at hand and no code. From them are the measure by
    attention (ACC), elimination layer by layer, a formula for the speed-up, and that the speed-up can be set without
    training again. Where and how states are chosen is PoWER-BERT's (Goyal et al. 2020, arXiv 2001.08950;
    IBM/PoWER-BERT@6b0e406), the rest this project's:

    - score s_l(j) = mean over heads and real rows i of A_l(i, j) (`acc`); the first state, BERT's [CLS], always stays;
    - ACC_l, how large a part of a layer's states carries its context, by one of three measures (elimination.py), a
      running mean over the first `plain_steps` training passes, in which nothing is let go of, or over all if nothing
      ever is; passes of a run before (`pretrain`) count;
    - kept at layer l of a row of T states: max(1, ceil(alpha_l T)), alpha_l = r_l ** gamma, r_l = min over k <= l of
      ACC_k, and 1e-4 less than r_(l-1) at least, so that any measure can be made to let go. A row's own T, so that it
      does not matter with which others it is;
    - gamma, for a wanted speed-up, by bisection of the cost formula at the mean length of the training's rows.

    `speed_up`, `score` and `profile` are of evaluation alone: one training, many operating points. `trained_*` are of
    training after the plain steps; at `trained_speed_up` 1 it eliminates nothing. `score` also: `sig` (PoWER-BERT's),
    `random` (the control), `first` (the first K); `profile` also `linear`, `geometric`. A speed-up of 1 is
    encoders.encoder_only.EncoderOnly with the same weights. A state that was let go of is given back as it was then
    (as Kim and Cho 2021, arXiv 2010.07003), so that every position has one. PoWER-BERT's profile, learnt by soft
    gates, is not here.

    Reads the stream "type". Raises ValueError for a speed-up that no row of the task can have; for one that is out of
    reach of the rows that training had, when it is first to be given.
    """

    family: ClassVar[str] = "encoder-only"
    reads: ClassVar[frozenset[str]] = frozenset({"type"})
    test_only: ClassVar[Mapping[str, Any]] = MappingProxyType({"speed_up": 1.0, "score": "acc", "profile": "effective"})

    contribution_3L: Tensor  # running mean of ACC_l over the states there are, for each measure and layer
    states: Tensor  # () running mean of the states of a row
    passes: Tensor  # () int64, of training, so far

    def __init__(
        self,
        *,
        speed_up: Annotated[float, Field(ge=1)],
        score: Literal["acc", "sig", "random", "first"],
        profile: Literal["effective", "mass", "above", "linear", "geometric"],
        trained_speed_up: Annotated[float, Field(ge=1)],
        trained_score: Literal["acc", "sig", "random", "first"],
        trained_profile: Literal["effective", "mass", "above", "linear", "geometric"],
        plain_steps: Annotated[int, Field(ge=0)],
        spec: InputSpec,
        **block: Unpack[Arguments],
    ) -> None:
        super().__init__()
        depth = block["depth"]
        if depth < 1:
            raise ValueError(f"depth: {depth}; layers let go of states, so there is one at least")
        self.dim, self.hidden, self.causal, self.plain_steps = block["dim"], block["hidden"], False, plain_steps
        self.tested: tuple[float, elimination.Score, elimination.Profile] = speed_up, score, profile
        self.trained: tuple[float, elimination.Score, elimination.Profile]
        self.trained = trained_speed_up, trained_score, trained_profile
        self.embed = embedding_of(block, spec)
        initialise_tables(self.embed, block["stem"])
        length = self.embed.num_states(spec.max_length)
        self.stack = stack_of(block, length=length, causal=False, cross=False)
        most = elimination.most(depth, length, dim=self.dim, hidden=self.hidden)
        for key, wanted in (("speed_up", speed_up), ("trained_speed_up", trained_speed_up)):
            if wanted > most:
                raise ValueError(f"{key}: {wanted:g}; {most:.2f} is the most on rows of up to {length} states")
        before = torch.exp(-(torch.arange(depth) + 1.0) / depth)  # any falling profile, until one is measured
        self.register_buffer("contribution_3L", before.repeat(3, 1))
        self.register_buffer("states", torch.tensor(float(length)))
        self.register_buffer("passes", torch.tensor(0))
        self._solved: dict[object, list[float]] = {}

    def forward(self, source: Sequences) -> States:
        """States of the source, one a position (or patch)."""
        x_BLD, mask_BL = self.embed(source)
        plain = self.training and (self.trained[0] == 1 or int(self.passes) < self.plain_steps)
        wanted, score, profile = self.trained if self.training else self.tested
        if self.training:
            self.passes += 1
        if wanted == 1 and not self.training:
            x_BLD, _ = self.stack(x_BLD, mask_BL, keep=False)
            return States(values=x_BLD, mask=mask_BL)
        alphas = None if plain else self.alphas(wanted, profile)
        values_BLD, measured = self._layers(x_BLD, mask_BL, alphas, score, elimination.fingerprint(source))
        if plain:
            self._remember(measured, mask_BL)
        return States(values=values_BLD, mask=mask_BL)

    def num_states(self, length: int) -> int:
        """Number of states for a source of `length` positions."""
        return self.embed.num_states(length)

    @property
    def token_embedding(self) -> Tensor | None:
        """The (V, D) table of ids; None for channels."""
        return None if self.embed.table is None else self.embed.table.weight

    def alphas(self, wanted: float, profile: elimination.Profile) -> list[float]:
        """What part of a row's states each layer keeps for a speed-up. Raises ValueError where none gives it."""
        now = wanted, profile, self.contribution_3L.data_ptr(), self.contribution_3L._version, self.states._version
        if now not in self._solved:
            measure = elimination.CONTRIBUTIONS.index(profile) if profile in elimination.CONTRIBUTIONS else 0
            measured = self.contribution_3L[measure].tolist()
            sizes = {"dim": self.dim, "hidden": self.hidden}
            gamma = elimination.solve(
                wanted, round(float(self.states)), **sizes, parts=lambda g: elimination.fractions(profile, measured, g)
            )
            self._solved = {now: elimination.fractions(profile, measured, gamma)}
        return self._solved[now]

    def _layers(
        self,
        x_BND: Tensor,
        mask_BN: Tensor,
        alphas: list[float] | None,
        score: elimination.Score,
        fingerprint_B: Tensor,
    ) -> tuple[Tensor, list[Tensor]]:
        """States (B, L, D) of every position; without alphas, where all stay, each layer's contributions (3, B)."""
        (rows, length), whole_B = mask_BN.shape, mask_BN.sum(1)
        places_BN = torch.arange(length, device=mask_BN.device).expand(rows, length)
        x_BND, gone, measured = self.stack.enter(x_BND, places_BN), [], []
        for number, layer in enumerate(self.stack.layers):
            assert isinstance(layer, Layer)
            real, alpha = see_real(mask_BN), 1.0 if alphas is None else alphas[number]
            most = elimination.kept(alpha, length)
            goes = alphas is not None and (real is not None or most < x_BND.shape[1])
            looks = alphas is None or (goes and score in {"acc", "sig"})
            x_BND, weights_BHNN = self._attend(layer, x_BND, real, places_BN, looks)
            if alphas is None:
                assert weights_BHNN is not None
                measured.append(elimination.contributions(elimination.received(weights_BHNN, mask_BN), mask_BN))
            elif goes:
                chance = None if self.training else (fingerprint_B, number)
                scores_BN = elimination.scored(score, weights_BHNN, mask_BN, places_BN, chance)
                kept_B = (alpha * whole_B.double() - 1e-6).ceil().clamp_min(1)
                index_BK, mask_BK = elimination.survivors(scores_BN, mask_BN, kept_B, min(most, x_BND.shape[1]))
                gone.append((places_BN, mask_BN, x_BND))
                places_BN, mask_BN = places_BN.gather(1, index_BK), mask_BK
                x_BND = x_BND.gather(1, index_BK.unsqueeze(2).expand(-1, -1, x_BND.shape[2]))
            residual = layer.feed_forward_residual
            x_BND = residual.leave(x_BND, layer.feed_forward(residual.enter(x_BND)))
        return self.stack.norm(elimination.restored([*gone, (places_BN, mask_BN, x_BND)], length)), measured

    def _attend(
        self, layer: Layer, x_BND: Tensor, real: Tensor | None, places_BN: Tensor, looks: bool
    ) -> tuple[Tensor, Tensor | None]:
        """States after a layer's attention and, if it `looks`, the attention weights (B, H, N, N), without gradient."""
        attention, residual, position = layer.attention, layer.attention_residual, self.stack.position
        q_BHNE, k_BGNE, v_BGNE = attention.project(residual.enter(x_BND), position.rotation(places_BN))
        seen = sight(real, position.bias(places_BN, places_BN), causal=False, queries=x_BND.shape[1])
        if not looks:
            return residual.leave(x_BND, attention.attend(q_BHNE, (k_BGNE, v_BGNE), seen)), None
        weights_BHNN = attention.weights(q_BHNE, k_BGNE, seen)
        v_BHNE = v_BGNE.repeat_interleave(attention.heads // attention.groups, 1)
        used_BHNN = nn.functional.dropout(weights_BHNN, attention.dropout, self.training)
        y_BHNE = used_BHNN.to(v_BHNE.dtype) @ v_BHNE
        x_BND = residual.leave(x_BND, attention.out(y_BHNE.transpose(1, 2).flatten(2)))
        return x_BND, weights_BHNN.detach().float()

    @torch.no_grad()
    def _remember(self, measured: list[Tensor], mask_BL: Tensor) -> None:
        """Take a pass into the running means; the first one replaces what stood there."""
        rate = max(1 / int(self.passes), MOMENTUM)
        now_3L = torch.stack([part_3B.mean(1) for part_3B in measured], 1)
        self.contribution_3L.lerp_(now_3L.to(self.contribution_3L), rate)
        self.states.lerp_(mask_BL.sum(1).float().mean(), rate)
