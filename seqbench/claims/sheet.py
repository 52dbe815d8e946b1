"""configs/claim/NAME.yaml: what a paper says, which runs put it to the test, and what would confirm or refute it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from seqbench.composition.source import suggest
from seqbench.errors import ConfigError

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "claim"

Selector = dict[str, str | int | float | bool | None]  # config key -> value; `encoder` and `task` by their names
Quantity = Annotated[str, Field(pattern=r"^(valid|test|cost|encoder)/[A-Za-z0-9_.@ -]+$")]


class Part(BaseModel):
    """What is read from a file, or kept in one."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Comparison(Part):
    """A number made of one or two sets of runs, and the side of a bound on which the claim puts it."""

    name: str
    where: Selector = Field(default={}, description="of both sides")
    a: Selector
    b: Selector | None = Field(default=None, description="null: a alone is held against the bound")
    of: Quantity = Field(
        description="test/<metric>, cost/<key of a record's cost> (cost/latency.p50_ms), or encoder/<what it tells>"
    )
    by: Literal["difference", "ratio"] = Field(default="difference", description="a - b, or a / b")
    exponent_over: str | None = Field(
        default=None, description="config key x: instead of the quantity, n in quantity ~ x^n over the runs of a side"
    )
    at_least: float | None = None
    at_most: float | None = None
    decides: bool = Field(default=True, description="false: shown beside the verdict, and no part of it")
    published: str | None = Field(default=None, description="the paper's figure, in words")

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.decides and self.at_least is None and self.at_most is None:
            raise ValueError("give at_least, at_most or both: what is claimed; or decides: false")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least {self.at_least:g} is more than at_most {self.at_most:g}")
        return self


class Curve(Part):
    """A plot that the claim wants: a quantity over another, or over a config key; a line for each set of runs."""

    name: str
    x: str = Field(
        description="config key, or a quantity such as cost/latency.p50_ms; along: parts of a sequence, of which y has "
        "a score each, by the share of the sequence that has come when they end"
    )
    y: Quantity
    where: Selector = {}
    lines: Annotated[dict[str, Selector], Field(min_length=1)]
    log_x: bool = False
    log_y: bool = False


class Claim(Part):
    """A claim. Its runs are a study, so that every command that takes a study takes them."""

    title: str
    paper: str = Field(description="authors, year, arXiv")
    statement: str = Field(description="one falsifiable sentence, at the size that is run here")
    published: str = Field(description="what the paper reports, with its set-up")
    study: str
    comparisons: Annotated[list[Comparison], Field(min_length=1)]
    curves: list[Curve] = []
    reading: str = Field(default="", description="what the outcome says, written after it fell")

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        names = [comparison.name for comparison in self.comparisons]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two comparisons are named {name!r}")
        if not any(comparison.decides for comparison in self.comparisons):
            raise ValueError("no comparison decides; at least one must")
        return self


def names(folders: Sequence[Path] = (FOLDER,)) -> list[str]:
    """Of all claims, sorted."""
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def read_claim(name: str, folders: Sequence[Path] = (FOLDER,)) -> Claim:
    """A claim by its name, from the first folder that has it.

    Raises ConfigError: there is none, or its file is no claim.
    """
    import yaml

    from seqbench.composition.explain import explain, join

    path = next((path for folder in folders if (path := folder / f"{name}.yaml").is_file()), None)
    if path is None:
        raise ConfigError(f"claim: {name!r} is not one of configs/claim{suggest(name, names(folders))}")
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Claim.model_validate(content)
    except yaml.YAMLError as error:
        raise ConfigError(f"claim/{name}.yaml: is no YAML: {str(error).splitlines()[0]}") from None
    except ValidationError as error:
        lines = explain(error, "", content, _keys_at)
        raise join([f"claim/{name}.yaml: {line}" for line in lines]) from None


def _keys_at(names: list[str]) -> list[str]:
    """The keys of a part of a claim."""
    parts: dict[str, type[Part]] = {"comparisons": Comparison, "curves": Curve}
    model = parts.get(names[0]) if names else Claim
    return list(model.model_fields) if model is not None else []
