"""One short forward pass of a new encoder, to find what breaks the contract before anything is trained on it."""
# L positions

from __future__ import annotations

import torch

from encoders.base import Encoder, InputSpec, Sequences, check_states
from seqbench.randomness import isolated

LENGTHS = (5, 3)  # positions of the rows, as far as the encoder takes them


def probe(encoder: Encoder, spec: InputSpec) -> None:
    """Raise ContractError where states aren't what the contract says. Leaves modes and random states."""
    modules = list(encoder.modules())
    modes = [module.training for module in modules]
    place = next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))
    encoder.eval()
    try:
        with isolated(0), torch.no_grad():
            source = _drawn(spec, [min(length, spec.max_length) for length in LENGTHS]).to(place)
            check_states(encoder(source), encoder, source)
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def _drawn(spec: InputSpec, lengths: list[int]) -> Sequences:
    """Right-padded random rows of what a task feeds."""
    longest = max(lengths)
    mask = torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)
    if spec.vocab_size is not None:
        values = torch.randint(spec.vocab_size, mask.shape)
    else:
        values = torch.randn(*mask.shape, spec.channels or 1)
    streams = {
        name: _drawn(part, [min(length, part.max_length) for length in lengths]) for name, part in spec.streams.items()
    }
    return Sequences(values=values, mask=mask, streams=streams)
