"""Planning: each cell of a study or a sweep composed, checked and named by its id, before any of them runs."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from omegaconf import OmegaConf

from seqbench.composition.complaints import complaint
from seqbench.composition.compose import compose, config_loader
from seqbench.composition.compositions import Compositions
from seqbench.composition.explain import join
from seqbench.composition.guard import GuardedLoader
from seqbench.composition.schema import Node, examine
from seqbench.config import Look, Names, RunConfig, check_config
from seqbench.cores import at_once, workers
from seqbench.errors import ConfigError
from seqbench.garbage import uncollected
from seqbench.records.memo import Memo
from seqbench.studies.grid import Cell as Overrides
from seqbench.studies.grid import Grid, parse, read_study, read_sweep

if TYPE_CHECKING:
    from encoders.base import Encoder
    from tasks.base import Task

Pair = tuple[str, str, str, tuple[str, ...], bool]
MANY = 128  # pairs that are worth a process of their own


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One run of a plan."""

    id: str
    config: RunConfig
    names: Names
    overrides: list[str]  # that make this config, without the study
    values: dict[str, str] = field(default_factory=dict)  # of the keys that vary, besides encoder, task and seed

    @property
    def title(self) -> str:
        """`encoder_only x scan, encoder.dim=64, seed 0`: what tells it from the others of its plan."""
        vary = [f"{key}={value}" for key, value in self.values.items()]
        return ", ".join([f"{self.names.encoder} x {self.names.task}", *vary, f"seed {self.config.seed}"])


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """A pair of the grid that cannot be, and why."""

    encoder: str
    task: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The runs of a study or a sweep, in order; the board of a study is made of the records with these ids."""

    study: str | None
    title: str
    description: str
    cells: list[Cell]
    left_out: list[LeftOut]
    dimensions: list[str] = field(default_factory=list)  # keys that vary


def plan(study: str, overrides: Sequence[str] = (), *, loader: ConfigLoader | None = None) -> Plan:
    """The plan of a study, with overrides on top. Reads no data; a user's own data files are hashed.

    Raises ConfigError and Hydra's errors for any cell that can't be, DataError for a missing file.
    """
    loader = loader or config_loader()
    with _keeping(loader), uncollected():
        return _plan_study(study, overrides, loader)


def _plan_study(study: str, overrides: Sequence[str], loader: ConfigLoader) -> Plan:
    return _plan(read_study(study, _content(study, loader), list(overrides)), loader)


def _content(study: str, loader: ConfigLoader) -> Any:
    """What a study's file says; read alone where the command's composition has shown that nothing else adds to it."""
    if isinstance(loader, GuardedLoader) and loader.stands_alone("study", study):
        content = loader.plain_file("study", study)
        if content is not None and "${" not in json.dumps(content, default=str):
            return content
    return OmegaConf.to_container(compose(loader, [f"study={study}"]).study, resolve=True)


def plan_sweep(overrides: Sequence[str], *, loader: ConfigLoader | None = None) -> Plan:
    """The plan of a command line with commas; `study=NAME` in it makes it a study's."""
    typed = parse(overrides)
    chosen = [value.partition("=")[2] for value in typed.pop("study", [])]
    if len(chosen) > 1:
        raise ConfigError(f"study: {', '.join(chosen)}; one study at a time")
    rest = [text for text in overrides if text.partition("=")[0] != "study"]
    if chosen and chosen[0] != "null":
        return plan(chosen[0], rest, loader=loader)
    loader = loader or config_loader()
    with _keeping(loader), uncollected():
        return _plan(read_sweep(rest), loader)


def _keeping(loader: ConfigLoader) -> AbstractContextManager[None]:
    return loader.keeping_files() if isinstance(loader, GuardedLoader) else nullcontext()


@dataclass
class _Row:
    """The cells that differ in nothing but the seed: checked once."""

    config: RunConfig
    cells: list[tuple[Overrides, int]] = field(default_factory=list)


def _plan(grid: Grid, loader: ConfigLoader) -> Plan:
    rows = _rows(grid, Compositions(loader))
    from seqbench import pretraining  # with torch: after all that can be said without it
    from seqbench.build import PairError, build_task, check_optimizer, check_selection
    from seqbench.matching.match import matched
    from seqbench.records import identity
    from seqbench.tuning import check, without_floors

    tasks: dict[str, Task] = {}
    key = Memo(_key)  # rows share their nodes
    for row in rows:
        of_task = key(row.config.task)
        if of_task not in tasks:
            tasks[of_task] = build_task(row.config)
        check_selection(row.config, tasks[of_task])
    for config in {key(row.config.optimizer): row.config for row in rows}.values():
        check_optimizer(config)
    left_out = _left_out([row.config for row in rows], tasks, key)
    cells: dict[str, Cell] = {}
    ready: dict[str, Task] = {}  # with data, where a budget is matched
    vary = [name for name in grid.dimensions if name not in ("encoder", "task", "seed")]
    hashed, data = _by_allowed(identity.without_paths), Memo(identity.data_identity)
    for row in rows:
        pair = _pair(row.config, key)
        if pair in left_out:
            continue
        try:
            row.config = matched(without_floors(row.config), ready)
            check(row.config, ready)
            pretraining.check(row.config, tasks[key(row.config.task)])
        except PairError as error:
            out = LeftOut(encoder=row.config.names.encoder, task=row.config.names.task, reason=_short(error))
            left_out[pair] = out
            continue
        facts = identity.facts(row.config, tasks[key(row.config.task)], of_node=hashed, of_data=data)
        ids = identity.digests(facts, [seed for _, seed in row.cells])
        for this, (overrides, seed) in zip(ids, row.cells, strict=True):
            typed = list(overrides.values())
            config = row.config.model_copy(update={"seed": seed, "overrides": typed})
            cells.setdefault(
                this,
                Cell(
                    id=this,
                    config=config,
                    names=config.names,
                    overrides=typed,
                    values={name: overrides[name].partition("=")[2] for name in vary if name in overrides},
                ),
            )
    lines = {(out.encoder, out.task, out.reason): out for out in left_out.values()}
    if not cells:
        raise join([f"{out.encoder} x {out.task}: {out.reason}" for out in lines.values()])
    return Plan(
        study=grid.study,
        title=grid.title,
        description=grid.description,
        cells=list(cells.values()),
        left_out=list(lines.values()),
        dimensions=grid.dimensions,
    )


def _rows(grid: Grid, compositions: Compositions) -> list[_Row]:
    """Every cell composed and checked, statically. Raises ConfigError with the mistakes of all of them."""
    rows: dict[tuple[str, ...], _Row | None] = {}
    mistakes: dict[str, list[str]] = {}  # what is wrong -> in which cells
    look = _remembering()
    apart: set[tuple[str, ...]] = set()  # rows in which a value is made of the seed: a row for each
    for overrides in grid.cells:
        seed, key = _seed(overrides)
        if key in apart:
            seed, key = None, tuple(overrides.values())
        if key not in rows:
            typed = list(overrides.values())
            try:
                tree, names = compositions.make(typed)
                if seed is not None and compositions.of_seed:
                    apart.add(key)
                    seed, key = None, tuple(typed)
                if grid.study:
                    names = names.model_copy(update={"study": grid.study})
                rows[key] = _Row(check_config(tree, names, typed, allowed=tree.get("allowed"), look=look))
            except Exception as error:
                text = complaint(error, typed, compositions.loader)
                if text is None:
                    raise
                rows[key] = None
                cell = " ".join(value for name, value in overrides.items() if name in ("encoder", "task"))
                for line in text.splitlines()[:2]:
                    mistakes.setdefault(line, []).append(cell)
        row = rows[key]
        if row is not None:
            row.cells.append((overrides, row.config.seed if seed is None else seed))
    if mistakes:
        raise join([line for text, cells in mistakes.items() for line in _placed(text, cells, len(rows))])
    return [row for row in rows.values() if row is not None]


def _remembering() -> Look:
    """`examine`, which looks once at nodes of several rows that are equal, and gives all of these one checked node."""
    found: dict[tuple[Any, ...], tuple[Node, list[str]]] = {}
    text = Memo(_text)

    def look(node: Any, path: str, allowed: Sequence[str], **more: Any) -> tuple[Node, list[str]]:
        written = text(node)
        if written is None:
            return examine(node, path, allowed, **more)
        key = (written, path, tuple(allowed), tuple(sorted(more.items())))
        if key not in found:
            found[key] = examine(node, path, allowed, **more)
        checked, mistakes = found[key]
        return checked, list(mistakes)

    return look


def _text(node: Any) -> str | None:
    """A node as JSON, as which `examine` reads it; None for what can't be written so."""
    try:
        return json.dumps(node)
    except (TypeError, ValueError):
        return None


def _by_allowed(make: Callable[[Any, tuple[str, ...]], Any]) -> Callable[[Any, tuple[str, ...]], Any]:
    """A function of a node and of the allowed packages, once for each node that is the same object."""
    memos: dict[tuple[str, ...], Memo[Any]] = {}

    def found(node: Any, allowed: tuple[str, ...]) -> Any:
        if allowed not in memos:
            memos[allowed] = Memo(lambda it: make(it, allowed))
        return memos[allowed](node)

    return found


def _placed(text: str, cells: list[str], rows: int) -> list[str]:
    """A mistake with each of its cells; alone where all of several rows have it, or where nothing tells cells apart."""
    if len(cells) == rows > 1:
        return [text]
    return [f"{text} ({cell})" if cell else text for cell in cells]


def _seed(overrides: Overrides) -> tuple[int | None, tuple[str, ...]]:
    """The seed, if it is a plain one, and what else there is."""
    text = overrides.get("seed", "")
    digits = text.partition("=")[2]
    if digits.isdecimal() and int(digits) < 2**32:
        return int(digits), tuple(value for key, value in overrides.items() if key != "seed")
    return None, tuple(overrides.values())


def _key(*nodes: Mapping[str, Any]) -> str:
    return json.dumps(nodes, sort_keys=True)


def _short(error: ConfigError) -> str:
    return str(getattr(error, "short", error)).splitlines()[0]


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a pair can't be; `apart`: by what the two are, each of them in order by itself."""

    why: str
    apart: bool


def _pair(config: RunConfig, key: Callable[..., str]) -> Pair:
    """All of a config that decides whether its encoder and its task can be together, and how that is told."""
    nodes, names = key(config.encoder, config.task), config.names
    return nodes, names.encoder, names.task, tuple(config.allowed), config.trainer.padding_free


def _left_out(configs: Sequence[RunConfig], tasks: Mapping[str, Task], key: Callable[..., str]) -> dict[Pair, LeftOut]:
    """The pairs that can't be: each tried on the meta device once, many of them in a process for each core.

    An encoder that can be built for no task at all is a mistake: ConfigError. One that can be built for some task, or
    with trainer.padding_free=false alone, is in order by itself, so it is the pair that is left out, with that setting.
    """
    pairs: dict[Pair, RunConfig] = {}
    for config in configs:
        pairs.setdefault(_pair(config, key), config)
    alike = _fed_alike(pairs, tasks, key)
    count = workers(len(pairs) // MANY)
    deals = [alike[i::count] for i in range(count)]  # dealt, since neighbours are of one encoder and take as long
    works = [functools.partial(_refusals, deal, pairs, tasks, key) for deal in deals]
    found = {this: refusal for part in at_once(works) for this, refusal in part.items()}
    refused = {this: found[this] for this in pairs}  # in the grid's order
    sound = {key(pairs[this].encoder) for this, refusal in refused.items() if refusal is None or refusal.apart}
    left_out, bad = {}, []
    for this, refusal in refused.items():
        if refusal is None:
            continue
        names = pairs[this].names
        left_out[this] = LeftOut(encoder=names.encoder, task=names.task, reason=refusal.why)
        if key(pairs[this].encoder) not in sound:
            bad.append(refusal.why)
    if bad:
        raise join(bad)
    return left_out


def _fed_alike(pairs: Mapping[Pair, RunConfig], tasks: Mapping[str, Task], key: Callable[..., str]) -> list[list[Pair]]:
    """The pairs, those together whose tasks feed one encoder the same: it need be built once for them."""
    fed: dict[str, str] = {}
    found: dict[tuple[Any, ...], list[Pair]] = {}
    for this, config in pairs.items():
        of_task = key(config.task)
        if of_task not in fed:
            try:
                fed[of_task] = repr(tasks[of_task].outline())
            except ConfigError:  # _refusals says it
                fed[of_task] = of_task
        built = (key(config.encoder), config.names.encoder, tuple(config.allowed), config.trainer.padding_free)
        found.setdefault((*built, fed[of_task]), []).append(this)
    return list(found.values())


def _refusals(
    alike: Sequence[Sequence[Pair]],
    pairs: Mapping[Pair, RunConfig],
    tasks: Mapping[str, Task],
    key: Callable[..., str],
) -> dict[Pair, _Refusal | None]:
    """What is wrong with each pair, if anything."""
    from seqbench.build import PairError, judge, outlined

    found: dict[Pair, _Refusal | None] = {}
    for together in alike:
        outline: Encoder | ConfigError | None = None
        for this in together:
            config = pairs[this]
            task, names = tasks[key(config.task)], config.names
            try:
                spec = task.outline()
                if outline is None:
                    try:
                        outline = outlined(config, spec)
                    except ConfigError as error:
                        outline = error
                if isinstance(outline, ConfigError):
                    raise outline
                judge(outline, task, spec, encoder_name=names.encoder, task_name=names.task)
                found[this] = None
            except ConfigError as error:
                found[this] = _Refusal(_short(error), isinstance(error, PairError))
    return found
