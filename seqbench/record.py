"""What a run leaves, also when it fails: one typed JSON file, beside it the predictions as Parquet."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1

Status = Literal["finished", "diverged", "out_of_memory", "timed_out", "interrupted", "killed", "failed"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_serialization_defaults_required=True)


class DataFile(_Part):
    """A file that the run read, or [] for generated data (arguments and versions say all)."""

    name: str
    url: str
    sha256: str
    size: int | None = Field(default=None, description="bytes")


class SplitFacts(_Part):
    """What became of a split's examples."""

    examples: int
    positions: int = Field(description="real positions fed")
    truncated: int
    dropped: int
    sha256: str = Field(description="of the examples' canonical JSON")
    in_train: int | None = Field(
        default=None, description="rows whose source stands in train, too; of train itself, rows that come again"
    )


class TaskFacts(_Part):
    """The column."""

    name: str = Field(description="config file name")
    label: str = Field(default="", description="what the board shows; empty: the name")
    kind: str = Field(description="class name: Classification, Labelling, ...")
    version: int
    data_version: int
    modality: str


class EncoderFacts(_Part):
    """The row."""

    name: str = Field(description="config file name")
    label: str = Field(description="what the board shows")
    family: str
    target: str
    told: dict[str, float] = Field(default_factory=dict, description="numbers that it tells of itself, trained")


class ScoreFacts(_Part):
    """One metric over one split."""

    value: float | None = Field(description="null where it is not defined")
    n: int
    best: Literal["max", "min"]
    unit: str
    target: str = Field(description="dotted name of the metric's class, to aggregate statistics again")
    along: list[float | None] = Field(
        default=[], description="the score of each part of a sequence, from its beginning on; [] where it has none"
    )


class Point(_Part):
    """A point of the learning curves, after `step` optimizer steps."""

    step: int
    seconds: float = Field(description="since the start of training, evaluation included")
    tokens: int = Field(description="real positions trained on so far")
    values: dict[str, float] = Field(
        description="train/loss, train/lr, valid/loss, valid/<metric>; a value that is not finite is left out"
    )


class Latency(_Part):
    """Milliseconds of one forward pass of the task on one example."""

    batch_size: int
    p50_ms: float
    p95_ms: float | None = Field(description="null for fewer than 20 repeats")
    repeats: int = Field(description="passes timed, on test examples drawn at random, the same for every encoder")


class Generation(_Part):
    """Decoding of one test row at a time with a cache, by the encoder alone: no head, no choice among tokens."""

    source: float = Field(description="mean positions of a source")
    first_ms: float = Field(description="median: the source read, and one step")
    next_ms: float | None = Field(default=None, description="median of each later step; null: targets of one token")
    cache_mib: float = Field(description="mean: what is kept of a source for the steps, counted")
    repeats: int


class Cost(_Part):
    """Cost beside quality; null where it was not measured."""

    parameters: int | None = Field(default=None, description="encoder and head")
    parameters_encoder: int | None = None
    parameters_embedding: int | None = Field(default=None, description="rows of input tables")
    parameters_trained: int | None = None
    flops_train: float | None = Field(default=None, description="of the whole training, counted on real steps")
    flops_forward: float | None = Field(default=None, description="of one test batch, whole, per real position")
    train_seconds: float | None = Field(default=None, description="in training steps alone")
    wall_seconds: float | None = Field(default=None, description="of the whole run")
    data_wait_share: float | None = Field(default=None, description="of train_seconds spent waiting for batches")
    padding_share: float | None = Field(
        default=None, description="of the positions that training worked on; 0 without padding"
    )
    train_tokens: int | None = Field(default=None, description="real positions trained on")
    train_items: int | None = Field(
        default=None, description="labels (rows, tokens, steps) that losses were means over"
    )
    train_tokens_per_second: float | None = None
    eval_examples_per_second: float | None = None
    latency: Latency | None = None
    generation: Generation | None = Field(default=None, description="null: the task generates nothing")
    peak_memory_mib: float | None = Field(
        default=None,
        description="on CUDA what torch held at most; on a CPU growth of the process's resident set, from before the "
        "run's data and model to its peak",
    )
    energy_joules: float | None = None
    peak_flops: float | None = Field(
        default=None,
        description="operations a second that all devices can do, dense, in the precision; null: a CPU, or unknown",
    )
    mfu: float | None = Field(default=None, description="flops_train / train_seconds / peak_flops")
    compilations: int | None = Field(default=None, description="with trainer.compile: frames compiled, again or not")
    recompilations: int | None = Field(default=None, description="of them again, for other shapes or settings")


class MatchFacts(_Part):
    """What the encoder's size was solved for, and what it came to."""

    of: Literal["params", "flops", "latency"]
    count: Literal["all", "encoder", "body"] | None = Field(description="which parameters")
    target: float = Field(description="parameters; operations of a training step on one example; milliseconds")
    reached: float
    leftover: float = Field(description="(reached - target) / target")
    tolerance: float
    spread: float | None = Field(
        default=None, description="of a latency: how far apart, relative, the least times of five rounds lay"
    )
    solved: dict[str, int] = Field(description="config key -> value")


class Variation(_Part):
    """A sample of the test split scored in another way, which should change nothing (seqbench/invariance.py)."""

    verdict: Literal["same", "moved", "failed", "not_applicable"]
    rows: int = Field(description="compared with the run's own predictions")
    moved: int = Field(default=0, description="of them: a number beyond the tolerance, or anything else that differs")
    flipped: int = Field(default=0, description="of the moved: other classes, words, ranks; near ties among them")
    largest_difference: float = Field(default=0.0, description="of a predicted number, relative")
    loss_difference: float | None = Field(default=None, description="largest of a batch, relative; null: not compared")
    tolerance: float = 0.0
    seconds: float = 0.0
    reason: str | None = None


class TrialFacts(_Part):
    """One trial of a tuning."""

    number: int
    settings: dict[str, Any] = Field(description="config key -> value")
    status: Status
    reason: str | None = None
    value: float | None = Field(default=None, description="the headline metric over the validation split")
    id: str | None = Field(default=None, description="of its record, under results/tuning")
    seconds: float | None = None
    tokens: int | None = None
    flops: float | None = None
    changed: list[str] = Field(
        default_factory=list, description="of its task's and encoder's code and data, between it and the run"
    )


class TuningFacts(_Part):
    """How the settings of a run were found; the test split had not been read by then."""

    sampler: str
    seed: int
    space: dict[str, Any]
    metric: str
    best: Literal["max", "min"]
    trials: list[TrialFacts]
    chosen: int = Field(description="number of the trial with the best validation score")


class Environment(_Part):
    """What it ran on."""

    python: str
    platform: str
    machine_class: str = Field(description="device or CPU model, count, threads, jobs: what makes costs comparable")
    device: str
    devices: int = Field(description="ranks: processes that shared the training, a device each")
    nodes: int = Field(default=1, description="machines")
    strategy: str = Field(default="single", description="single, ddp, fsdp: how several devices share a training")
    threads: int
    jobs: int = Field(default=1, description="runs that the machine had at once, this one included")
    precision: str
    deterministic: bool
    packages: dict[str, str]


class Code(_Part):
    """What code it ran."""

    commit: str | None
    dirty: bool | None
    source_sha256: str = Field(description="of the project's own .py files (encoders, tasks, seqbench)")
    files: dict[str, str] = Field(default_factory=dict, description="first 16 digits of each one's sha256")
    own: dict[str, str] = Field(default_factory=dict, description="user's packages in the config -> sha256 of source")


class ClusterFacts(_Part):
    """The scheduler's jobs that worked on the run, since it was last begun from the beginning."""

    scheduler: Literal["slurm"]
    jobs: list[str] = Field(description="their ids in order, 12_3 for a task of an array")
    requeues: int = Field(description="how often one was put back into the queue and started again")
    nodes: str = Field(description="of the last start, as SLURM writes them: n[1-2]")
    log: str | None = Field(default=None, description="what it printed, relative to the record's folder")


class Artefact(_Part):
    """A file beside the record."""

    path: str = Field(description="relative to the record's folder")
    sha256: str


class Saved(Artefact):
    """A checkpoint to go on from."""

    step: int


class Record(_Part):
    """One run. `results/<id>/record.json`."""

    schema_version: int = SCHEMA_VERSION
    id: str
    ids: int | None = Field(default=None, description="version of the recipe of ids (seqbench/records/identity.py)")
    status: Status
    reason: str | None = Field(default=None, description="why it did not finish, one or two lines")
    failed_at_step: int | None = None
    task: TaskFacts
    encoder: EncoderFacts
    protocol: str
    seed: int
    studies: list[str] = Field(default_factory=list, description="that asked for this cell")
    overrides: list[str] = Field(default_factory=list, description="as typed, to run it again")
    config: dict[str, Any] = Field(description="resolved, whole")
    headline: str | None = Field(default=None, description="name of the metric that ranks")
    scores: dict[str, dict[str, ScoreFacts]] = Field(default_factory=dict, description="split -> metric -> score")
    curves: list[Point] = Field(default_factory=list)
    data: list[DataFile] = Field(default_factory=list)
    splits: dict[str, SplitFacts] = Field(default_factory=dict)
    cost: Cost = Cost()
    match: MatchFacts | None = Field(default=None, description="where budget.match is set")
    invariance: dict[str, Variation] = Field(
        default_factory=dict,
        description="workers_0, workers_2, batch_1, padding; empty: not checked",
    )
    one_class: dict[str, str] = Field(
        default_factory=dict,
        description="split -> the only class that a classification predicted in it, though it has several; no floors",
    )
    code: Code
    environment: Environment
    tuning: TuningFacts | None = None
    parents: list[str] = Field(default_factory=list)
    predictions: Artefact | None = None
    checkpoint: Artefact | None = None
    saved: Saved | None = Field(default=None, description="last healthy checkpoint of a run that did not finish")
    best_step: int | None = None
    started: str = Field(description="ISO 8601, UTC")
    ended: str
    resumed: int = 0
    cluster: ClusterFacts | None = Field(default=None, description="null for a run outside a scheduler's jobs")
    notes: list[str] = Field(
        default_factory=list, description="what else to know of how it came about, a sentence each"
    )
    sha256: str | None = Field(default=None, description="of the rest as canonical JSON; set and checked by the store")


def schema() -> dict[str, Any]:
    """The JSON Schema of a record, as committed in `record.schema.json`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Record.model_json_schema(mode="serialization")}


if __name__ == "__main__":  # python -m seqbench.record > seqbench/record.schema.json
    import json

    print(json.dumps(schema(), indent=2))
