"""Greedy and beam search of tasks/search.py against `generate` of transformers, with the same weights and outputs."""
# B rows, L source positions, V vocabulary, D width

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from encoders.base import Decoder, InputSpec, Sequences
from seqbench.benchmark.base import Row, Settings, alternate, compared
from seqbench.build import build
from seqbench.composition.nodes import compose_node

VOCABULARY, LENGTH = 1000, 24  # ids, positions of a source
PAD, BOS, EOS = 0, 1, 2
BEAMS = 4
PRESETS = ("gpt2", "bart")
GOAL = 1.2


def measure(settings: Settings) -> list[Row]:
    """Tokens made a second, by the sizes of the stand-in presets; the outputs are held against each other first."""
    presets, batches, new = (("gpt2",), (2,), 4) if settings.quick else (PRESETS, (1, 32), 48)
    rows = []
    for name in presets:
        pair = Pair(name, settings.seed, new)
        for batch in batches:
            rows += [_row(settings, pair, name, sources(batch, settings.seed), beams) for beams in (1, BEAMS)]
    return rows


def _row(settings: Settings, pair: Pair, name: str, source: Sequences, beams: int) -> Row:
    made = pair.check(source, beams)

    def rate(call: Callable[[Sequences, int], object]) -> Callable[[], float]:
        return lambda: made / settings.seconds(lambda: call(source, beams))

    return compared(
        f"{name}, {'greedy' if beams == 1 else f'{beams} beams'}, batch of {len(source.values)}",
        alternate(rate(pair.ours), rate(pair.theirs), repeats=settings.pairs(9)),
        unit="tokens/s",
        goal=GOAL,
        better="higher",
    )


def sources(batch: int, seed: int) -> Sequences:
    """Rows of LENGTH real ids: `generate` counts positions anew where rows of a causal model are padded."""
    generator = torch.Generator().manual_seed(seed)
    values_BL = torch.randint(3, VOCABULARY, (batch, LENGTH), generator=generator)
    return Sequences(values=values_BL, mask=torch.ones_like(values_BL, dtype=torch.bool))


class Pair:
    """A model of transformers with a head, and our preset with its weights."""

    def __init__(self, name: str, seed: int, new: int) -> None:
        import transformers

        self.new = new
        torch.manual_seed(seed)
        size = 128
        ids: dict[str, Any] = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
        if name == "gpt2":
            self.model: Any = transformers.GPT2LMHeadModel(
                transformers.GPT2Config(
                    vocab_size=VOCABULARY, n_embd=size, n_layer=4, n_head=4, n_positions=LENGTH + 1 + new, **ids
                )
            )
        else:
            sides: dict[str, Any] = {
                f"{side}_{key}": value
                for side in ("encoder", "decoder")
                for key, value in {"layers": 2, "attention_heads": 4, "ffn_dim": 4 * size}.items()
            }
            self.model = transformers.BartForConditionalGeneration(
                transformers.BartConfig(
                    vocab_size=VOCABULARY,
                    d_model=size,
                    max_position_embeddings=LENGTH + 1 + new,
                    decoder_start_token_id=BOS,
                    forced_eos_token_id=None,
                    **ids,
                    **sides,
                )
            )
        self.model.eval()
        with torch.no_grad():  # logits that differ enough for no tie
            for parameter in self.model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(4.0)
        spec = InputSpec(max_length=LENGTH, vocab_size=VOCABULARY, target_length=new)
        decoder = build(compose_node("encoder", name, changes={}), "encoder", ["encoders"], spec=spec)
        assert isinstance(decoder, Decoder)
        self.decoder = decoder.eval()
        conversion: Any = importlib.import_module("encoders.conversion")
        names = conversion.gpt2_names() if name == "gpt2" else conversion.bart_names()
        base = self.model.base_model.state_dict()
        self.decoder.load_state_dict(conversion.convert(base, names, self.decoder.state_dict()))
        self.causal = name == "gpt2"
        search: Any = importlib.import_module("tasks.search")
        self.searches = {1: search.Greedy(), BEAMS: search.Beam(size=BEAMS, length_penalty=0.0)}

    def logits(self, states_BD: Tensor) -> Tensor:
        """(B, V), by the table of ids, as theirs."""
        table = self.decoder.token_embedding
        assert table is not None
        return torch.nn.functional.linear(states_BD, table)

    def ours(self, source: Sequences, beams: int) -> list[list[int]]:
        """Ids without begin and end."""
        search = self.searches[beams]
        found = search(self.decoder, self.logits, source, bos=BOS, eos=EOS, max_new=self.new)
        return [hypothesis.ids for hypothesis in found]

    def theirs(self, source: Sequences, beams: int) -> list[list[int]]:
        """The same, of `generate`."""
        ids_BL = source.values
        if self.causal:  # the source, then begin: what ours reads
            ids_BL = torch.cat([ids_BL, torch.full_like(ids_BL[:, :1], BOS)], 1)
        found_BT = self.model.generate(
            input_ids=ids_BL,
            attention_mask=torch.ones_like(ids_BL),
            max_new_tokens=self.new,
            num_beams=beams,
            do_sample=False,
            length_penalty=0.0,
            early_stopping=False,
        )
        start = ids_BL.shape[1] if self.causal else 1
        rows = found_BT[:, start:].tolist()
        return [row[: row.index(EOS)] if EOS in row else row for row in rows]

    def check(self, source: Sequences, beams: int) -> int:
        """Tokens that are made. Raises AssertionError where the two make others."""
        ours, theirs = self.ours(source, beams), self.theirs(source, beams)
        assert ours == theirs, f"outputs differ: {ours} and {theirs}"
        return sum(min(len(ids) + 1, self.new) for ids in ours)
