"""Cost of generating: what a cache holds by hand, times that are known, and no number where nothing is generated."""
# S positions of a source

from __future__ import annotations

import contextlib
import types
from typing import Any
from unittest import mock

import pytest
import torch

from encoders.base import Decoder, Encoder
from seqbench.costs import cost
from seqbench.library import load_encoder, load_task
from seqbench.training.evaluation import Evaluator
from tasks.loading import Batching
from tests.seqbench.test_cost import evaluator

PAIRS, DIM = 5, 32
SOURCE = PAIRS * 3 + 2 + 1  # keys and values, the question, its end


def evaluator_of(encoder: str, **changes: Any) -> Evaluator:
    data = {"pairs": PAIRS, "train": 20, "valid": 5, "test": 7}
    task = load_task("needle_list", data=data, max_length=SOURCE, **changes)
    task.setup()
    sizes = {"dim": DIM, "hidden": 16, "layer": {"attention": {"head_dim": 4}}}
    made = load_encoder(encoder, task.spec, **sizes)
    task.attach(made)
    return Evaluator(
        task=task,
        encoder=made,
        batching=Batching(rows=4),
        device=torch.device("cpu"),
        precision=contextlib.nullcontext,
        workers=0,
        seed=0,
    )


@pytest.mark.parametrize("encoder, layers", [("return_of_encoder", 2), ("return_of_encoder_causal", 6)])
def test_a_cache_holds_keys_and_values_of_the_layers_that_read_the_source(encoder: str, layers: int) -> None:
    found = cost.generation(evaluator_of(encoder))
    assert found is not None
    assert found.source == SOURCE
    numbers = layers * 2 * 3 * 4 * SOURCE * 4  # keys and values, heads, their width, positions, bytes
    assert found.cache_mib * 2**20 == pytest.approx(numbers + SOURCE)  # and the mask
    assert found.repeats == cost.LEAST
    assert found.next_ms is not None


def test_times_are_of_reading_and_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on in the encoder's calls alone: 30 ms for a source, 10 ms for a step."""
    now = 0.0
    made = evaluator_of("return_of_encoder_causal")
    assert isinstance(made.encoder, Decoder)
    prefill, decode = made.encoder.prefill, made.encoder.decode

    def slowly(call: Any, seconds: float) -> Any:
        def slow(*given: Any) -> Any:
            nonlocal now
            now += seconds
            return call(*given)

        return slow

    monkeypatch.setattr(cost, "time", types.SimpleNamespace(perf_counter=lambda: now))
    with (
        mock.patch.object(made.encoder, "prefill", slowly(prefill, 0.03)),
        mock.patch.object(made.encoder, "decode", slowly(decode, 0.01)),
    ):
        found = cost.generation(made)
    assert found is not None
    assert found.next_ms is not None
    assert (found.first_ms, found.next_ms) == (pytest.approx(40), pytest.approx(10))


def test_nothing_is_measured_where_nothing_is_generated() -> None:
    assert cost.generation(evaluator()) is None
    made = evaluator_of("return_of_encoder", max_target_length=1)
    assert isinstance(made.encoder, Encoder)
    with mock.patch.object(cost, "TOKENS", 1):
        found = cost.generation(made)
    assert found is not None
    assert found.next_ms is None
