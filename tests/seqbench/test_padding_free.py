"""trainer.padding_free: the same losses, gradients and scores by work on real positions alone; who can't is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import version
from torch.testing import assert_close

from encoders.base import Encoder
from seqbench.build import build_encoder, build_task, check_pair
from seqbench.composition.compose import own_loader
from seqbench.composition.compositions import Compositions
from seqbench.config import RunConfig, check_config
from seqbench.errors import ConfigError
from seqbench.invariance import apart
from seqbench.record import Record
from seqbench.run import run
from seqbench.training.feed import count_positions
from tasks.base import Task

SMALL = ("encoder.dim=16", "encoder.hidden=24", "encoder.dropout=0", "encoder.depth=1", "seed=3")
TASKS = ("own_classification", "own_labelling", "own_regression", "own_sequence_to_sequence", "python_code_lm")
FAMILIES = ("encoder_only", "decoder_only", "encoder_decoder")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """For each task a file of rows of 1 to 20 words."""
    folder = tmp_path_factory.mktemp("files")
    generator = np.random.default_rng(0)
    rows = [[f"w{k}" for k in generator.integers(12, size=n)] for n in generator.integers(1, 21, size=150)]
    targets = {
        "own_classification": [len(set(row)) % 2 for row in rows],
        "own_regression": [len(set(row)) / 2 for row in rows],
        "own_sequence_to_sequence": [" ".join(sorted(set(row))) for row in rows],
    }
    found = {}
    for task, answers in targets.items():
        lines = "".join(f"{' '.join(row)},{answer}\n" for row, answer in zip(rows, answers, strict=True))
        heading = "source,target\n" if task == "own_sequence_to_sequence" else "text,label\n"
        (folder / f"{task}.csv").write_text(heading + lines)
        found[task] = f"task.data.train={folder / f'{task}.csv'}"
    tagged = "\n".join("".join(f"{word} {'AB'[int(word[1:]) % 2]}\n" for word in row) for row in rows)
    (folder / "own_labelling.conll").write_text(tagged)
    return {**found, "own_labelling": f"task.data.train={folder / 'own_labelling.conll'}"}


@pytest.fixture(scope="module")
def made() -> Compositions:
    version.setbase("1.3")
    return Compositions(own_loader())


def config_of(made: Compositions, *overrides: str) -> RunConfig:
    tree, names = made.make(list(overrides))
    return check_config(tree, names, list(overrides))


def pair(config: RunConfig, task: Task) -> Encoder:
    torch.manual_seed(0)
    encoder = build_encoder(config, task.spec)
    task.attach(encoder)
    return encoder


def possible(task: str, encoder: str) -> bool:
    if task == "python_code_lm":
        return encoder == "decoder_only"
    return task != "own_sequence_to_sequence" or encoder != "encoder_only"


@pytest.mark.parametrize("name, encoder", [(t, e) for t in TASKS for e in FAMILIES if possible(t, e)])
def test_a_task_has_the_same_loss_gradients_and_predictions(
    made: Compositions, files: dict[str, str], name: str, encoder: str
) -> None:
    data = (files[name], "tokenizer=words") if name in files else ("task.max_length=40",)
    words = (f"encoder={encoder}", f"task={name}", *SMALL, *data)
    config = config_of(made, *words)
    task = build_task(config)
    task.setup()
    padded = pair(config, task)
    packed = build_encoder(config_of(made, *words, "trainer.padding_free=true"), task.spec)
    packed.load_state_dict(padded.state_dict())
    assert (padded.packed, packed.packed) == (False, True)
    rows = np.argsort(task.lengths("train"), kind="stable")[:: max(1, len(task.lengths("train")) // 5)]
    batch = task.collate("train", rows)
    real, every = count_positions(batch)
    assert real < every
    assert count_positions(batch, packed=True) == (real, real)

    found = []
    for one in (padded, packed):
        task.train()
        task.zero_grad()
        output = task(one.train(), batch)
        output.loss.backward()
        gradients = [p.grad.clone() for p in (*one.parameters(), *task.parameters()) if p.grad is not None]
        task.eval()
        with torch.no_grad():
            tested = task(one.eval(), batch)
        found.append((output.loss.detach(), output.items, gradients, tested.loss, tested.predictions))
    (loss, items, gradients, tested, predictions), other = found
    assert other[1] == items
    assert_close(other[0], loss, atol=1e-5, rtol=1e-5)
    assert_close(other[2], gradients, atol=1e-5, rtol=1e-4)
    assert_close(other[3], tested, atol=1e-5, rtol=1e-5)
    assert apart(predictions, other[4]) < 1e-5  # no other class, word or tag; numbers to their digits


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, encoder", [("own_labelling", "encoder_only"), ("own_sequence_to_sequence", "decoder_only")]
)
def test_a_run_has_the_same_curve_and_scores(
    made: Compositions, files: dict[str, str], name: str, encoder: str, tmp_path: Path
) -> None:
    """And its record counts what was worked on: no padding, the operations of real positions."""

    def recorded(folder: str, *more: str) -> Record:
        words = (f"encoder={encoder}", f"task={name}", *SMALL, files[name], "tokenizer=words", "budget.steps=12")
        rest = ("budget.batch_size=16", "budget.eval_every=6", "logger=none", "trainer.progress=false")
        return run(config_of(made, *words, *rest, f"results={tmp_path / folder}", *more)).record

    padded, packed = recorded("padded"), recorded("packed", "trainer.padding_free=true")
    assert (padded.status, packed.status) == ("finished", "finished")
    assert padded.id != packed.id
    for one, other in zip(padded.curves, packed.curves, strict=True):
        assert other.values == pytest.approx(one.values, rel=1e-4)
    assert {n: s.value for n, s in packed.scores["test"].items()} == pytest.approx(
        {n: s.value for n, s in padded.scores["test"].items()}
    )
    assert packed.cost.train_tokens == padded.cost.train_tokens
    assert packed.cost.padding_share == 0
    assert padded.cost.padding_share is not None
    assert padded.cost.padding_share > 0.02
    assert padded.cost.flops_train is not None
    assert packed.cost.flops_train is not None
    assert packed.cost.flops_train < (1 - padded.cost.padding_share / 2) * padded.cost.flops_train
    assert {variation.verdict for variation in packed.invariance.values()} == {"same"}


def test_who_cannot_is_refused_in_a_line_before_data_is_read(made: Compositions) -> None:
    for name in ("lstm", "tcn", "s4d"):
        config = config_of(made, f"encoder={name}", "task=listops", "trainer.padding_free=true")
        with pytest.raises(
            ConfigError, match=rf"^trainer.padding_free: true, but encoder {name} .*use false$"
        ) as caught:
            check_pair(config, build_task(config))
        assert str(caught.value).count("\n") == 0
    trivial = config_of(made, "encoder=majority", "task=listops", "trainer.padding_free=true")
    check_pair(trivial, build_task(trivial))  # nothing to pack, nothing to refuse
