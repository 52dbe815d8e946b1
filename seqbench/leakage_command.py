"""The command that looks for leaks: a task's data, its report in lines or as JSON, kept beside the records."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from seqbench.cli import guarded

USAGE = """python scripts/leakage.py task=NAME [task.data.KEY=VALUE ...] [results=FOLDER] [--json]

Rows shared across splits, near duplicates, and what a constant, the length or a bag of words score on test.
The report is kept under results/leakage; boards of these results show its warnings under the task's column."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, or 2 for the user's mistake."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0
    as_json = "--json" in arguments

    def job(cfg: object) -> int:
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import DictConfig

        from seqbench.composition.compose import names_of
        from seqbench.config import load_config

        assert isinstance(cfg, DictConfig)
        settings = HydraConfig.get()
        config = load_config(cfg, names_of(settings.runtime.choices), list(settings.overrides.task))
        from seqbench import leakage, randomness  # torch, after all that is said without it
        from seqbench.build import build_task
        from seqbench.records import provenance

        task = build_task(config)
        task.data.check()
        randomness.seed_all(randomness.derive(config.seed, "data"))
        task.setup()
        found = leakage.report(task, config.names.task, provenance.split_facts(task))
        path = leakage.write(Path(config.results), found)
        print(found.model_dump_json(indent=2) if as_json else "\n".join([*lines(found), f"report: {path}"]))
        return 0

    # the encoder plays no part; the lightest one is composed
    return guarded("train", job, ["encoder=bag", *(a for a in arguments if a != "--json")])


def lines(found: object) -> list[str]:
    """A report for a terminal."""
    from seqbench.leakage import Leakage

    assert isinstance(found, Leakage)
    told = [f"{found.task}: {b.name.replace('_', ' ')}: {b.measure} {b.value:.4g} on test" for b in found.baselines]
    told += [f"{found.task}: warning: {warning}" for warning in found.warnings]
    return told or [f"{found.task}: nothing found"]
