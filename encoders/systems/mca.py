"""MCA of PaccMann: a molecule's tokens under convolutions of several widths, read in the light of a context vector."""
# B batch, L positions, E width of an embedding, G numbers of the context, M heads, S width of a scale, K of the code

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from encoders.base import Encoder, InputSpec, Sequences, States, check_length
from encoders.blocks.convolution import Convolution, normed, on_real
from encoders.systems.mca_parts import ContextGate, ContextualAttention, NGrams, Recurrent, StackedConvolutions

BITS, LONGEST = 512, 5  # of the fingerprint: its bits, and the tokens of an n-gram


class MCA(Encoder):
    """Manica et al. 2019 (arXiv 1904.11223), after the official PyTorch code (PaccMann/paccmann_predictor@ed31bd6).

    E = embedding(source); scales R_0 = E, R_k = BN(dropout(ReLU(convolution_k(E)))), k over `kernels`; of each scale
    `heads` summaries sum_t alpha_t R_t, alpha = softmax_t(v . tanh(W_r R_t + b_r + W_c c + b_c)), whose context is the
    gated g~ = softmax(W g + b) * g; BN of all summaries side by side, then layers ReLU(BN(linear)) with dropout. One
    state a row, of width `dim`: a task's linear head makes the number of it.

    The context g is the stream `context`: channels, the mean over its positions (of a vector there is one); of ids (a
    protein's residues) the share of each id, which is not the paper's. `gates: scale` has a gate for each scale, as the
    TensorFlow code of the paper, `one` is the PyTorch code's. As a softmax over G makes each gated number about G
    times smaller, `gate` may be `scaled`, G * softmax(W g + b) * g.

    `smiles_encoder` puts a baseline of the paper in their place: contextual attention on embeddings alone (`ca`),
    attention without context on them (`sa`), stacked convolutions (`scnn`), two GRUs (`birnn`), a fingerprint
    of 512 bits (here of hashed token n-grams: no Morgan bits). `concatenate` puts the context beside the code, for all
    but `mca` in the paper: gated, for the fingerprint raw.

    Differences: padding is masked in convolutions, attention and batch norms (the official code has rows of one length
    and attends to padding); no start and stop tokens; no dropout on the gate's logits, which the official code has; all
    begins as PyTorch has it, where the TensorFlow code draws attentions from N(0, 0.1); a molecule has one order of
    atoms in training, too; head and loss are the task's, so no sigmoid. O(L (E + M A)) time.
    ValueError for channels, for no stream `context`, and for a source beyond `spec.max_length`.
    """

    family: ClassVar[str] = "convolutional"
    causal = False
    reads: ClassVar[frozenset[str]] = frozenset({"context"})
    requires: ClassVar[frozenset[str]] = frozenset({"context"})

    def __init__(
        self,
        *,
        smiles_encoder: Literal["mca", "ca", "sa", "scnn", "birnn", "fingerprint"],
        concatenate: Literal["none", "gated", "raw"],
        gate: Literal["softmax", "scaled"],
        gates: Literal["one", "scale"],
        embedding: Annotated[int, Field(gt=0)],
        kernels: list[Annotated[int, Field(gt=0)]],
        filters: Annotated[int, Field(gt=0)],
        attention: Annotated[int, Field(gt=0)],
        heads: Annotated[int, Field(gt=0)],
        hidden: list[Annotated[int, Field(gt=0)]],
        dim: Annotated[int, Field(gt=0)],
        dropout: Annotated[float, Field(ge=0, lt=1)],
        spec: InputSpec,
    ) -> None:
        super().__init__()
        if spec.vocab_size is None:
            raise ValueError("MCA reads ids; this task feeds channels; use gdsc_deepcdr or davis")
        if "context" not in spec.streams:
            raise ValueError(
                "MCA reads a stream `context` beside its source, which gdsc_deepcdr and davis feed, this not"
            )
        even = [kernel for kernel in kernels if kernel % 2 == 0]
        if even:
            raise ValueError(
                f"kernels: {even[0]} is even; as many positions on both sides need an odd number, as {even[0] + 1}"
            )
        self.dim, self.spec = dim, spec
        context = spec.streams["context"]
        self.genes = context.channels or context.vocab_size or 0
        self.smiles_encoder, self.concatenate = smiles_encoder, concatenate
        self.table = nn.Embedding(spec.vocab_size, embedding) if smiles_encoder != "fingerprint" else None
        self.convolutions, self.norms, self.attentions = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.dropout = nn.Dropout(dropout)
        self.code: nn.Module | None = None
        widths = [embedding]  # of scales
        attended = smiles_encoder in ("mca", "ca")
        if smiles_encoder == "mca":
            widths += [filters] * len(kernels)
            for kernel in kernels:
                self.convolutions.append(
                    Convolution(
                        inputs=embedding, outputs=filters, kernel_size=kernel, ahead=(kernel - 1) // 2, bias=True
                    )
                )
                self.norms.append(nn.BatchNorm1d(filters))
        if attended or smiles_encoder == "sa":
            for width in widths:
                genes = self.genes if attended else 0
                self.attentions.append(ContextualAttention(dim=width, context=genes, size=attention, heads=heads))
            size = heads * sum(widths)
        elif smiles_encoder == "fingerprint":
            self.code, size = NGrams(bits=BITS, longest=LONGEST), BITS
        elif smiles_encoder == "birnn":
            self.code, size = Recurrent(dim=embedding, widths=(32, 16)), 32
        else:
            self.code, size = StackedConvolutions(dim=embedding, filters=filters, dropout=dropout), filters
        count = (len(widths) if gates == "scale" else 1) if attended else int(concatenate == "gated")
        self.gates = nn.ModuleList(ContextGate(genes=self.genes, scaled=gate == "scaled") for _ in range(count))
        size += 0 if concatenate == "none" else self.genes
        self.code_width = size  # K
        self.norm = nn.BatchNorm1d(size)
        steps = [size, *hidden, dim]
        self.dense = nn.ModuleList(nn.Linear(steps[i], steps[i + 1]) for i in range(len(steps) - 1))
        self.dense_norms = nn.ModuleList(nn.BatchNorm1d(step) for step in steps[1:])

    @property
    def token_embedding(self) -> Tensor | None:
        """None: the table is narrower than a state."""
        return None

    def num_states(self, length: int) -> int:
        """One state for the whole row."""
        return 1

    def forward(self, source: Sequences) -> States:
        """The state of each row, (B, 1, D)."""
        x_BK = normed(self.norm, self.summary(source))
        for linear, norm in zip(self.dense, self.dense_norms, strict=True):
            x_BK = self.dropout(F.relu(normed(norm, linear(x_BK))))
        return States(values=x_BK.unsqueeze(1), mask=source.mask[:, :1])

    def summary(self, source: Sequences) -> Tensor:
        """What the dense layers read, (B, K): the code of the molecule, and the context where it stands beside it."""
        check_length(source, self.spec)
        raw_BG = self.context(source)
        gated = [gate(raw_BG) for gate in self.gates]
        if self.code is not None:
            x_BLE = source.values if self.table is None else self.table(source.values)
            parts = [self.code(x_BLE, source.mask).to(raw_BG.dtype)]
        else:
            scales = self._scales(source)  # once: in training another call drops others, and moves the norms' averages
            pairs = zip(scales, self._attend(scales, source.mask, gated), strict=True)
            parts = [torch.einsum("bml,bls->bms", alpha, x_BLS.to(alpha.dtype)).flatten(1) for x_BLS, alpha in pairs]
        if self.concatenate != "none":
            parts.append(gated[0] if self.concatenate == "gated" else raw_BG)
        return torch.cat(parts, 1)

    def explain(self, source: Sequences) -> list[Tensor]:
        """What the attention falls on: of each scale (B, M, L), the sum over real positions 1; [] without attention.

        It says little without a control: the same of a model that is not trained, or that has another's context.
        """
        check_length(source, self.spec)
        raw_BG = self.context(source)
        if self.code is not None:
            return []
        return self._attend(self._scales(source), source.mask, [gate(raw_BG) for gate in self.gates])

    def context(self, source: Sequences) -> Tensor:
        """The vector g, (B, G) float32."""
        stream = source.streams["context"]
        mask_BC = stream.mask.unsqueeze(-1)
        is_ids = self.spec.streams["context"].vocab_size is not None
        x_BCG = F.one_hot(stream.values, self.genes).float() if is_ids else stream.values
        return (x_BCG * mask_BC).sum(1) / mask_BC.sum(1).clamp_min(1)

    def _scales(self, source: Sequences) -> list[Tensor]:
        assert self.table is not None
        x_BLE, mask_BL = self.table(source.values), source.mask
        scales = [x_BLE * mask_BL.unsqueeze(-1)]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            scales.append(on_real(norm, self.dropout(F.relu(convolution(x_BLE, mask_BL))), mask_BL))
        return scales

    def _attend(self, scales: list[Tensor], mask_BL: Tensor, gated: list[Tensor]) -> list[Tensor]:
        found = []
        for i, (attention, x_BLS) in enumerate(zip(self.attentions, scales, strict=True)):
            context = None if self.smiles_encoder == "sa" else gated[min(i, len(gated) - 1)]
            found.append(attention(x_BLS, mask_BL, context))
        return found
