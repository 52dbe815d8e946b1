"""Hydra's door to sweeps and studies: `-m`. (Hydra finds sweepers in the namespace package hydra_plugins only.)"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from seqbench.cluster.launcher import Slurm

SLURM = "seqbench.cluster.launcher.Slurm"


class StudySweeper(Sweeper):
    """Plans all cells, leaves those that have a record, runs the rest; ends the process with code 1 if one failed."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra hands over."""
        self.context, self.job, self.whole = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Plan and run. Raises SystemExit where a cell did not finish."""
        from seqbench.studies.sweep import sweep

        code = sweep(arguments, loader=self.context.config_loader, launch=self._launch())
        if code:
            raise SystemExit(code)

    def _launch(self) -> Callable[[list[list[str]]], Any] | Slurm | None:
        """The configured launcher; None for Hydra's basic one, whose work is done in this process without it."""
        if self.whole.hydra.launcher._target_ == SLURM:
            from seqbench.cluster.launcher import Slurm

            given = OmegaConf.to_container(self.whole.hydra.launcher, resolve=True)
            assert isinstance(given, dict)
            return Slurm({str(key): value for key, value in given.items()}, list(self.whole.hydra.overrides.hydra))
        if self.whole.hydra.launcher._target_.endswith(".BasicLauncher"):
            return None
        launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=self.job, config=self.whole
        )
        return lambda batch: launcher.launch(batch, initial_job_idx=0)
