"""The command line: one run, or with -m a sweep or a study. Answers what needs no torch without importing it."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import _run_app, get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from seqbench.composition.complaints import complaint
from seqbench.composition.compose import CONFIG_NAME, config_loader, find_plugins, names_of, own_loader
from seqbench.config import load_config
from seqbench.errors import ConfigError
from seqbench.garbage import uncollected
from seqbench.ranks.place import placed

USER_ERROR, SOME_FAILED, INTERRUPTED = 2, 1, 130


@dataclass
class _Result:
    """What a task function leaves for main(), since Hydra prints on its own what a job returns or raises."""

    code: int = 0
    error: BaseException | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 finished; 1 a run failed (its record says why), or could not be put into `mirror`; 2 the user's mistake, in at
    most three lines on stderr; 130 interrupted. Errors of our own are raised.
    """
    return guarded(CONFIG_NAME, _job, argv)


def guarded(config_name: str, job: Callable[[DictConfig], int], argv: Sequence[str] | None = None) -> int:
    """A Hydra application over configs/ whose mistakes are said in a few lines: for this and the other commands."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    find_plugins()  # before the working directory is on the path
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a package of the user's, beside their results
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us in place of Hydra's own printing
    result = _Result()
    options = Namespace(overrides=[], config_dir=None)
    before = sys.argv
    try:
        parser, options = _parse(arguments)
        sys.argv = [before[0], *arguments]
        GlobalHydra.instance().clear()
        _application(config_name, _kept(job, result), parser, options)
        if result.error is not None:
            raise result.error
        return result.code
    except SystemExit as end:  # of --help, and of a sweep in which a cell failed
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        if (place := placed()) is None or place.rank == 0:
            print("interrupted; the same command goes on from the last checkpoint, if there was one", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if (place := placed()) is not None and place.rank:
            return USER_ERROR  # the first rank has said it
        GlobalHydra.instance().clear()
        text = str(error) if isinstance(error, ConfigError) else None
        text = text or complaint(error, options.overrides, config_loader(options.config_dir))
        if text is None:
            raise
        print(text, file=sys.stderr)
        return USER_ERROR
    finally:
        sys.argv = before
        GlobalHydra.instance().clear()


def _application(
    config_name: str, job: Callable[[DictConfig], None], parser: ArgumentParser, options: Namespace
) -> None:
    """What `hydra.main` does, with a loader that lets no config file run anything (seqbench/composition/guard.py)."""
    version.setbase("1.3")
    loader = own_loader(options.config_dir)
    app = Hydra(task_name=config_name, config_loader=loader)
    GlobalHydra.instance().initialize(app)
    with loader.keeping_files():  # a plan composes of the files that Hydra has read
        _apply(app, config_name, job, parser, options)


def _apply(
    app: Hydra, config_name: str, job: Callable[[DictConfig], None], parser: ArgumentParser, options: Namespace
) -> None:
    named: Any = {"config_name": config_name, "overrides": options.overrides}
    if options.help:
        app.app_help(config_name=config_name, args_parser=parser, args=options)
    elif options.hydra_help:
        app.hydra_help(config_name=config_name, args_parser=parser, args=options)
    elif options.cfg:
        app.show_cfg(**named, cfg_type=options.cfg, package=options.package, resolve=options.resolve)
    elif options.info:
        app.show_info(options.info, **named)
    elif options.shell_completion:
        app.shell_completion(**named)
    else:
        run = not options.multirun
        # Hydra composes the whole config to see whether it says a mode, which here only a typed override can
        typed = any(o.lstrip("+~").startswith("hydra.mode") for o in options.overrides)
        mode = app.get_mode(**named) if typed else None
        _run_app(run=run, multirun=not run, mode=mode, hydra=app, task_function=job, **named)


def _kept(job: Callable[[DictConfig], int], result: _Result) -> Callable[[DictConfig], None]:
    def kept(cfg: DictConfig) -> None:
        try:
            result.code = max(result.code, job(cfg))
        except (Exception, KeyboardInterrupt) as error:
            result.error = error

    return kept


def _parse(arguments: list[str]) -> tuple[ArgumentParser, Namespace]:
    """The arguments as Hydra reads them. Raises ConfigError for options that Hydra does not have, or not together."""
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}; --help lists what there is")

    parser.error = refuse  # type: ignore[method-assign]
    found = parser.parse_intermixed_args(arguments)
    modes = [found.run, found.multirun, found.cfg, found.info, found.shell_completion]
    if sum(bool(mode) for mode in modes) > 1:
        raise ConfigError("only one of --run, --multirun, --cfg, --info and --shell-completion at a time")
    if found.resolve and not found.cfg:
        raise ConfigError("--resolve goes with --cfg")
    if found.experimental_rerun is not None:
        raise ConfigError("--experimental-rerun: reads a pickle, which can run anything; type the overrides again")
    if found.config_name is not None or found.config_path is not None:
        raise ConfigError("--config-name, --config-path: not here; --config-dir FOLDER adds files to those of configs/")
    return parser, found


def _job(cfg: DictConfig) -> int:
    """One run. Checked first; torch is imported after that."""
    settings = HydraConfig.get()
    names = names_of(settings.runtime.choices)
    if names.study and settings.mode != RunMode.MULTIRUN:
        raise ConfigError(f"study={names.study}: a study is a grid of runs; add -m")
    if settings.mode != RunMode.MULTIRUN and str(settings.launcher._target_).startswith("seqbench."):
        raise ConfigError("hydra/launcher=slurm: what is launched is a sweep; add -m, for a single run, too")
    overrides = [o for o in settings.overrides.task if o.partition("=")[0] != "study"]
    with uncollected():
        config = load_config(cfg, names, overrides)
    from seqbench.run import run

    outcome = run(config)
    from seqbench.report import describe

    place = placed()
    if place is None or place.rank == 0:
        print(describe(outcome.record, Path(config.results), skipped=outcome.skipped))
    done = outcome.record.status == "finished" and outcome.unmirrored is None
    return 0 if done else SOME_FAILED
