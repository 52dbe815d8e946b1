"""Dropout: where an encoder has one it does something, in training alone, at the rate that the config says."""
# B batch, L positions, D width

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.base import Decoder, Encoder, Sequences, States
from tests.contract.cases import Case, Check

RATE = 0.3  # of no config, and of no default of torch
FUNCTIONS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
MODULES = nn.modules.dropout._DropoutNd


def dropout_acts_in_training_at_its_rate(case: Case) -> None:
    """Each rate of the config by itself: without it training gives the same again, with it it does not."""
    keys = list(rates(case.node))
    quiet = made(case, dict.fromkeys(keys, 0.0))
    for read in readings(case):
        assert torch.equal(read(quiet.train()), read(quiet)), "no rate is set, and training is by chance"
    for key in keys:
        encoder = made(case, dict.fromkeys(keys, 0.0) | {key: RATE})
        for read in readings(case):
            with applied() as found:
                first, second = read(encoder.train()), read(encoder)
            assert set(found) <= {0.0, RATE}, f"{key}: {RATE} in the config, {sorted(set(found))} applied"
            assert not torch.equal(first, second), f"{key}: {RATE} does nothing in training"
            with applied() as found:
                again = read(encoder.eval())
                assert torch.equal(again, read(encoder)), f"{key}: evaluation is by chance"
            assert not any(found), f"{key}: {found} applied in evaluation"


def each_dropout_acts(case: Case) -> None:
    """Every place that can drop, alone, moves what is read in training: none stands beside the way of the states."""
    keys = list(rates(case.node))
    encoder = made(case, dict.fromkeys(keys, RATE)).train()
    if keys:
        assert list(places(encoder)) or not any(rates(case.node).values()), "dropout in the config, none in the encoder"
    found = places(encoder)
    for module in encoder.modules():
        _set(module, 0.0)
    # of an encoder-decoder prefill() and decode() go another way than forward()
    still = [(read, read(encoder)) for read in readings(case)]
    for name, rate in found.items():
        assert rate == RATE, f"{name}: {RATE} in the config, {rate} there"
        _set(encoder.get_submodule(name), RATE)
        assert all(not torch.equal(read(encoder), same) for read, same in still), f"{name}: drops nothing that is read"
        _set(encoder.get_submodule(name), 0.0)
    for read, same in still:
        assert torch.equal(read(encoder), same), "something drops beside the places that were found"


def readings(case: Case) -> list[Callable[[Encoder], Tensor]]:
    """forward(), and of a Decoder prefill() with decode(), as functions of an encoder with a seed that goes on."""
    source, target = case.draw([9, 6, 4]), case.draw([5, 4, 2], seed=2)

    def whole(encoder: Encoder) -> Tensor:
        states = encoder(source)
        return states.values[states.mask].detach()

    def continued(encoder: Encoder) -> Tensor:
        assert isinstance(encoder, Decoder)
        before: States = encoder.prefill(Sequences(values=source.values, mask=source.mask, streams=source.streams))
        states = encoder.decode(target, before)
        return torch.cat([part.values[part.mask] for part in (before, states)]).detach()

    return [whole, continued] if issubclass(case.target, Decoder) else [whole]


@contextmanager
def applied() -> Iterator[list[float]]:
    """The rates of every dropout that is called with training on: of torch's functions, and of attention weights."""
    found: list[float] = []

    def watching(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
            if training:
                found.append(p)
            return function(input, p, training, inplace)

        return call

    attention = F.scaled_dot_product_attention

    def attend(*given: Any, **named: Any) -> Tensor:
        rate = named.get("dropout_p", given[4] if len(given) > 4 else 0.0)
        if rate:
            found.append(rate)
        return attention(*given, **named)

    functions = {name: watching(getattr(F, name)) for name in FUNCTIONS}
    with mock.patch.multiple(F, scaled_dot_product_attention=attend, **functions):
        yield found


def rates(node: Any, path: str = "") -> dict[str, float]:
    """Numbers of a config whose key says that they drop, by dotted key."""
    found: dict[str, float] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            found |= rates(value, f"{path}{key}.")
        elif "drop" in key and isinstance(value, float | int) and not isinstance(value, bool):
            found[path + key] = value
    return found


def made(case: Case, changes: dict[str, float]) -> Encoder:
    """The case's encoder with other rates; whatever else a step of training may do by a `chance` never happens."""
    node = _never(copy.deepcopy(case.node))
    for key, rate in changes.items():
        *sections, last = key.split(".")
        part = node
        for section in sections:
            part = part[section]
        part[last] = rate
    return replace(case, node=node).make()


def _never(node: Any) -> Any:
    return {
        key: _never(value) if isinstance(value, dict) else 0.0 if key == "chance" else value
        for key, value in node.items()
    }


def places(encoder: nn.Module) -> dict[str, float]:
    """Modules that drop, with their rate: torch's, and those that keep a number `dropout`, as recurrent ones do."""
    found = {}
    for name, module in encoder.named_modules():
        if isinstance(module, MODULES):
            found[name] = module.p
        elif isinstance(getattr(module, "dropout", None), float):
            found[name] = module.dropout
    return {name: rate for name, rate in found.items() if not _idle(encoder.get_submodule(name))}


def _idle(module: nn.Module) -> bool:
    """A single recurrent layer, which has nothing between layers to drop."""
    return isinstance(module, nn.RNNBase) and module.num_layers == 1


def _set(module: nn.Module, rate: float) -> None:
    if isinstance(module, MODULES):
        module.p = rate
    elif isinstance(getattr(module, "dropout", None), float):
        module.dropout = rate


DROPOUT_CHECKS: list[Check] = [dropout_acts_in_training_at_its_rate, each_dropout_acts]
