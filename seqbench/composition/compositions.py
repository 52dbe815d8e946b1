"""Many configs by few compositions: a choice of one group is composed once, not once for each cell that makes it."""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from seqbench.composition.compose import compose, groups, names_of
from seqbench.composition.guard import GuardedLoader, Reach
from seqbench.config import ASIDE, Names, resolve
from seqbench.records.memo import Memo
from seqbench.studies.grid import bare, parse_one

Tree = dict[str, Any]
Choices = tuple[str, ...]
OF_SEED = re.compile(r"\$\{[^}]*\bseed\b")  # an interpolation of a seed, in a value that is not resolved


@dataclass(frozen=True, slots=True)
class _Composed:
    tree: Tree  # plain, interpolations as text
    chosen: dict[str, Any]  # group -> name
    files: tuple[Reach, ...] = ()  # of a composition of Hydra's


class Compositions:
    """Composed configs as plain values.

    A choice is separable where it changes, against the first composition, none but files that write into nothing but
    the part of the config that bears its group's name; that their values are equal elsewhere is not enough, since
    beside another choice they may not be. The config of several such choices is put together from those parts; any
    other set of choices is composed by Hydra. Overrides of single keys are set on the plain values where that is all
    they need, and by Hydra where they add, delete or merge.
    """

    def __init__(self, loader: ConfigLoader) -> None:
        self.loader = loader
        self.groups = set(groups(loader))
        self.base: tuple[Choices, _Composed] | None = None
        self.parts: dict[str, tuple[Any, Any] | None] = {}  # choice -> (part, name), None: not separable
        self.whole: dict[Choices, _Composed] = {}
        self.alone: dict[str, GuardedLoader] = {}  # groups whose part is one file's, in the base
        self._text = Memo(functools.partial(json.dumps, default=str))  # of sections, which configs share
        self.of_seed = False  # whether a value of the config made last is made of the seed, in a file or an override

    def make(self, overrides: Sequence[str]) -> tuple[Tree, Names]:
        """The resolved config under some overrides, and its names. Raises Hydra's errors and ConfigError."""
        choices = tuple(text for text in overrides if self._is_choice(text))
        single = [parse_one(text) for text in overrides if not self._is_choice(text)]
        composed = self._choose(choices)
        tree = dict(composed.tree)
        if not all(_set(tree, override) for override in single):
            cfg = OmegaConf.create(copy.deepcopy(composed.tree))
            OmegaConf.set_struct(cfg, True)
            ConfigLoaderImpl._apply_overrides_to_config(single, cfg)
            self.of_seed = OF_SEED.search(json.dumps(OmegaConf.to_container(cfg), default=str)) is not None
            return resolve(cfg), names_of(composed.chosen)
        text = "".join(map(self._text, tree.values()))
        self.of_seed = "${" in text and OF_SEED.search(text) is not None
        if "${" in text or "???" in text:
            tree = resolve(OmegaConf.create(tree))
        return {k: v for k, v in tree.items() if k not in ASIDE}, names_of(composed.chosen)

    def _is_choice(self, text: str) -> bool:
        group = bare(text.partition("=")[0]).partition("@")[0]
        return "." not in group and group.partition("/")[0] in self.groups

    def _choose(self, choices: Choices) -> _Composed:
        if choices in self.whole:
            return self.whole[choices]
        if self.base is None:
            self.base = (choices, self._compose(choices))
            if isinstance(self.loader, GuardedLoader):
                named = [text.partition("=")[::2] for text in choices]
                self.alone = {key: self.loader for key, name in named if self.loader.stands_alone(key, name)}
            return self.base[1]
        base_choices, base = self.base
        keys = [text.partition("=")[0] for text in choices]
        if keys != [text.partition("=")[0] for text in base_choices]:
            return self._compose(choices)
        tree, chosen = dict(base.tree), dict(base.chosen)
        for i, text in enumerate(choices):
            if text == base_choices[i]:
                continue
            part = self._part(i, text)
            if part is None:
                return self._compose(choices)
            tree[keys[i]], chosen[keys[i]] = part
        self.whole[choices] = _Composed(tree, chosen)
        return self.whole[choices]

    def _part(self, i: int, text: str) -> tuple[Any, Any] | None:
        if text not in self.parts:
            assert self.base is not None
            choices, base = self.base
            key, _, name = text.partition("=")
            if key in self.alone and (part := self.alone[key].plain_file(key, name)) is not None:
                self.parts[text] = part, name
                return self.parts[text]
            other = self._compose((*choices[:i], text, *choices[i + 1 :]))
            same = _elsewhere(base.files, key) == _elsewhere(other.files, key) != ()
            same = same and not any(file.depends for file in other.files if file not in base.files)
            same = same and _without(base.chosen, key) == _without(other.chosen, key) and key in other.tree
            self.parts[text] = (other.tree[key], other.chosen.get(key)) if same else None
        return self.parts[text]

    def _compose(self, choices: Choices) -> _Composed:
        if choices not in self.whole:
            cfg = compose(self.loader, list(choices))
            files = self.loader.reach() if isinstance(self.loader, GuardedLoader) else ()
            tree = OmegaConf.to_container(cfg, resolve=False)
            assert isinstance(tree, dict)
            chosen = dict(cfg.hydra.runtime.choices)
            del tree["hydra"]
            self.whole[choices] = _Composed({str(key): value for key, value in tree.items()}, chosen, files)
        return self.whole[choices]


def _elsewhere(files: Sequence[Reach], section: str) -> tuple[Reach, ...]:
    """The files that write into another section, or into none."""
    return tuple(file for file in files if file.sections != {section})


def _without(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in mapping.items() if k != key}


def _set(tree: Tree, override: Override) -> bool:
    """Set one value in place, copying the mappings on the way to it; False where that isn't all that it takes."""
    if override.is_add() or override.is_delete() or override.package is not None:
        return False
    value = override.value()
    if isinstance(value, dict):
        return False
    *parents, last = override.key_or_group.split(".")
    node: Any = tree
    for name in parents:
        child = node.get(name)
        if not isinstance(child, dict):
            return False
        node[name] = dict(child)
        node = node[name]
    if last not in node:
        return False
    node[last] = value
    return True
