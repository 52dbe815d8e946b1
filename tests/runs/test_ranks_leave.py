"""A first rank that cannot begin: the others leave with it, and nobody waits."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
import yaml

from seqbench.ranks import crew
from seqbench.ranks.alarm import break_off
from tests.runs.test_pretraining import STAGE
from tests.seqbench.toy_cli import BASE
from tests.seqbench.toy_config import TREE

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120  # seconds, of a test for processes that should end by themselves


@pytest.mark.slow
def test_weights_that_do_not_fit_end_all_ranks_of_a_launcher(tmp_path: Path) -> None:
    """The launcher keeps the store, as torchrun does: that the first process has ended tells the others nothing."""
    configs = {f"{group}/toy": TREE[group] for group in ("encoder", "task", "budget")}
    for name, content in (configs | {"pretrain/first": STAGE}).items():
        file = tmp_path / "configs" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(content))
    store: Any = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "WORLD_SIZE": "2"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    changes = ["pretrain=first", "+pretrain.encoder.dim=5", "trainer.devices=auto", "trainer.nodes=auto"]
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "--config-dir", str(tmp_path / "configs")]
    ranks = [
        subprocess.Popen(
            [*command, *BASE, *changes],
            cwd=tmp_path,
            env=environment | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [rank.communicate(timeout=PATIENCE) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [2, 2], said
    assert "pretrain: its encoder's weights don't fit" in said[0][1]
    assert len(list((tmp_path / "results").glob("*/record.json"))) == 1  # of the run before, which both have made


def test_a_rank_waits_for_the_first_one_to_meet_all_or_to_leave() -> None:
    store: Any = dist.HashStore()  # type: ignore[attr-defined]
    waiting = threading.Thread(target=crew.meet_first, args=(store, 1))
    waiting.start()
    time.sleep(3 * crew.TICK)
    assert waiting.is_alive()
    assert store.check(["here/1"])
    store.set(crew.MET, b"")
    waiting.join(10)
    assert not waiting.is_alive()
    other: Any = dist.HashStore()  # type: ignore[attr-defined]
    break_off(other)
    with pytest.raises(crew.FirstGone) as error:
        crew.meet_first(other, 1)
    assert crew.is_lost(error.value)
