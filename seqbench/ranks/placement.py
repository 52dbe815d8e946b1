"""Where Lightning trains: one device, or the ranks of a run, which are started and know each other already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import nn

from seqbench.config import RunConfig
from seqbench.ranks.group import Ranks
from seqbench.ranks.sharding import Sharding
from seqbench.training.facts import strategy_of


class Known(ClusterEnvironment):
    """Tells Lightning what the ranks are; it has nothing to start and nothing to connect (seqbench.ranks.crew has)."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.ranks = ranks

    @property
    def creates_processes_externally(self) -> bool:
        """True: the ranks are there."""
        return True

    @property
    def main_address(self) -> str:
        """Not used: the ranks are connected."""
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        """Not used: the ranks are connected."""
        return 0

    @staticmethod
    def detect() -> bool:
        """Never by itself."""
        return False

    def world_size(self) -> int:
        """Ranks."""
        return self.ranks.size

    def set_world_size(self, size: int) -> None:
        """It is what it is."""

    def global_rank(self) -> int:
        """This one's number."""
        return self.ranks.rank

    def set_global_rank(self, rank: int) -> None:
        """It is what it is."""

    def local_rank(self) -> int:
        """Its number among those of its machine."""
        return self.ranks.local

    def node_rank(self) -> int:
        """The machine's."""
        return self.ranks.rank // (self.ranks.size // self.ranks.nodes)


def placement(config: RunConfig, ranks: Ranks, layers: Callable[[nn.Module], list[nn.Module]]) -> dict[str, Any]:
    """Lightning's arguments; `layers` finds those of a module that are cut by themselves, where it is cut.

    One process is one, also under a launcher that Lightning would find by itself.
    """
    if not ranks.several:
        return {"devices": 1, "plugins": [LightningEnvironment()]}
    strategy = (
        Sharding(layers=layers, cluster_environment=Known(ranks))
        if strategy_of(config) == "fsdp"
        else DDPStrategy(cluster_environment=Known(ranks), forward_sync_buffers=False)
    )
    return {
        "devices": ranks.size // ranks.nodes,
        "num_nodes": ranks.nodes,
        "strategy": strategy,
        "use_distributed_sampler": False,
    }
