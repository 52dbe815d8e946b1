"""What a board calls a run's row and its column: the user's words, else the names of the config files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seqbench.config import RunConfig
from seqbench.record import Record

PLAIN = ("train", "training", "data", "all")  # names of files that tell nothing without their folder's


def row_label(config: RunConfig) -> str:
    """`label`, or the encoder's file name."""
    return config.label or config.names.encoder


def column_label(config: RunConfig) -> str:
    """`task_label`, or the task's file name; where that serves for any data, with the data's: `own_labelling: a.conll`.

    Such data is known by its class, which names the arguments that are paths: the first of them that is given counts.
    """
    task = config.names.task
    if config.task_label:
        return config.task_label
    data = config.task.get("data")
    if not isinstance(data, dict) or "_target_" not in data:
        return task
    from seqbench.build import locate, paths_of  # with torch: as_asked() needs none

    paths = paths_of(locate(data["_target_"], "task.data", config.allowed))
    given = next((value for key, value in data.items() if key in paths and isinstance(value, str)), None)
    return task if given is None else f"{task}: {_short(given)}"


def as_asked(record: Record, config: RunConfig) -> Record:
    """The record with the study and the labels that a config asks for; the same object where it has them.

    A name is no part of a run, so that a new one needs none.
    """
    changes: dict[str, Any] = {}
    study = config.names.study
    if study is not None and study not in record.studies:
        changes["studies"] = sorted({*record.studies, study})
    if config.label is not None and config.label != record.encoder.label:
        changes["encoder"] = record.encoder.model_copy(update={"label": config.label})
    label = config.task_label
    if label is None and _moved(record, config):
        label = column_label(config)
    if label is not None and label != record.task.label:
        changes["task"] = record.task.model_copy(update={"label": label})
    return record.model_copy(update=changes) if changes else record


def _moved(record: Record, config: RunConfig) -> bool:
    """Whether the record's column has the name of a file that has another by now; its content is in the id."""
    then, now = ((tree.get("task") or {}).get("data") for tree in (record.config, {"task": config.task}))
    start, _, name = record.task.label.partition(": ")
    if not isinstance(then, dict) or not isinstance(now, dict) or start != record.task.name or not name:
        return False
    places = [value for key, value in then.items() if isinstance(value, str) and value != now.get(key)]
    left = [value for value in now.values() if isinstance(value, str)]
    file = Path(name).name
    return file in (Path(place).name for place in places) or file not in (Path(place).name for place in left)


def _short(place: str) -> str:
    """A file's or a folder's name; the name of a hub's set as it is."""
    path = Path(place).expanduser()
    if not path.exists():
        return place if len(path.parts) <= 2 and not path.is_absolute() else path.name
    path = path.resolve()
    return f"{path.parent.name}/{path.name}" if path.stem.lower() in PLAIN else path.name
