"""The sections of a run's config, and what each may hold: budget, schedule, trainer and the others."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from seqbench.training.schedules import Kind

Count = Annotated[int, Field(ge=1)]
Amount = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
ENDS = ("steps", "tokens", "flops", "seconds")  # what a budget can be counted in


class Section(BaseModel):
    """What is read strictly: no other keys, no text for a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Protocol(Section):
    """What is trained."""

    train: Literal["all", "head"]


class Budget(Section):
    """When a run ends, how batches are cut, when it is evaluated, what is held equal between encoders."""

    steps: Count | None = None
    tokens: Count | None = None
    flops: Amount | None = None
    seconds: Amount | None = None
    batch_size: Count | None
    batch_tokens: Count | None
    eval_every: Count | None
    eval_limit: Count | None
    eval_batch_tokens: Count
    patience: Count | None
    select: Literal["best", "last"]
    match: Literal["params", "flops", "latency"] | None = None
    target: Amount | None = None
    vary: Literal["width", "depth", "both"] = "width"
    count: Literal["all", "encoder", "body"] = "all"
    tolerance: Amount | None = None
    matched: Annotated[dict[str, Count], Field(min_length=1)] | None = None  # set by seqbench.matching: key -> solved

    @model_validator(mode="after")
    def _with_target(self) -> Self:
        if self.match is not None and self.target is None:
            raise ValueError(f"target: null, with match {self.match}; give the number to be reached")
        if self.match is None and (self.target is not None or self.matched is not None):
            raise ValueError("match: null, with a target; say what it is of: params, flops or latency")
        return self

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        given = [f"{key} {getattr(self, key):g}" for key in ENDS if getattr(self, key) is not None]
        if not given:
            raise ValueError(f"steps: null, with {', '.join(ENDS[1:])} null, would never end; set one of them")
        if len(given) > 1:
            raise ValueError(
                f"{given[0].replace(' ', ': ')}, with {' and '.join(given[1:])}; keep one, the others null"
            )
        return self

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.batch_size is None) == (self.batch_tokens is None):
            raise ValueError(
                f"batch_size: {self.batch_size or 'null'}, with batch_tokens {self.batch_tokens or 'null'}; "
                "set one of the two and make the other null"
            )
        if self.eval_every is None and self.select == "best":
            raise ValueError("select: best, with eval_every null, would have nothing to compare; use last")
        if self.eval_every is None and self.patience is not None:
            raise ValueError(f"patience: {self.patience}, with eval_every null, would wait for nothing; use null")
        return self


class Schedule(Section):
    """The learning rate as a share of its peak."""

    kind: Kind
    warmup: Share
    floor: Share

    @model_validator(mode="after")
    def _above_zero(self) -> Self:
        if self.kind == "exponential" and self.floor == 0:
            raise ValueError("floor: 0 can't be reached by equal factors; give a share above 0, such as 0.01")
        return self


class Dimension(Section):
    """What a key may be in a trial: between two numbers, or one of some values."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    whole: bool = False
    choices: Annotated[list[float | int | str | bool | None], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log or self.whole:
                raise ValueError("choices: stand alone, without low, high, log and whole")
        elif self.low is None or self.high is None or self.low >= self.high:
            raise ValueError(f"low: {self.low}, with high {self.high}; give a smaller and a larger number, or choices")
        elif self.log and self.low <= 0:
            raise ValueError(f"low: {self.low} has no logarithm; give a number above 0, or log false")
        elif self.whole and (self.low % 1 or self.high % 1):
            raise ValueError(f"low: {self.low}, with high {self.high}, are not both whole numbers")
        return self


class Tune(Section):
    """Trials before the run, the same for every row."""

    trials: Count
    sampler: Literal["random", "tpe"]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    space: Annotated[dict[str, Dimension], Field(min_length=1)]
    chosen: dict[str, Any] | None = None  # set by seqbench.tuning: key -> the best trial's value


class Trainer(Section):
    """Device, precision, workers."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"]
    devices: Count | Literal["auto"]
    nodes: Count | Literal["auto"] = 1  # records made before it was there had one; likewise the next
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    precision: Literal["32-true", "16-mixed", "bf16-mixed"]
    accumulate: Count
    clip: Annotated[float, Field(gt=0)] | None
    workers: Annotated[int, Field(ge=0)]
    threads: Count | None
    invariance_rows: Annotated[int, Field(ge=0)]
    save_every: Annotated[float, Field(gt=0)] | None
    time_limit: Annotated[float, Field(gt=0)] | None = None  # records made before it was there have none
    explosion: Annotated[float, Field(gt=1)] | None = None  # likewise
    padding_free: bool = False  # likewise
    tf32: bool = False  # likewise
    compile: Literal["default", "reduce-overhead", "max-autotune"] | None = None  # likewise
    progress: bool

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.accelerator == "cpu" and self.precision == "16-mixed":
            raise ValueError(f"precision: {self.precision} does not train on a CPU; use bf16-mixed or 32-true")
        return self


class Curves(Section):
    """A logger that needs no more than its rhythm."""

    every: Count


class WandB(Section):
    """Weights & Biases."""

    every: Count
    project: str
    entity: str | None
    group: str | None
    tags: list[str]
    mode: Literal["online", "offline", "disabled"] | None


class Logger(Section):
    """Where curves are written; what is left out is not written."""

    csv: Curves | None = None
    tensorboard: Curves | None = None
    wandb: WandB | None = None


class Pretrain(Section):
    """A run before this one, of the same encoder, with whose weights this one begins. Its own sections, as a run's.

    With a `teacher` it is of an encoder of its own, so named, and what it has learnt is what this one's task asks it.
    """

    name: str  # of its task, in its record
    teacher: str | None = None  # records made before it was there have none
    encoder: dict[str, Any]  # settings of the encoder that are other in it, such as a mask; a teacher's own, all of it
    task: dict[str, Any]
    protocol: Protocol
    budget: Budget
    optimizer: dict[str, Any]
    schedule: Schedule
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None  # None: the run's
