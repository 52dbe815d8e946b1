"""What a board calls a run's row and its column: the user's words, else the names of the config files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqbench.config import RunConfig
    from seqbench.record import DataFile, Record

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

    A name is no part of a run, so that a new one needs none. A column's that was typed is kept in the record's config,
    too, which tells it from one that was made of a file's name.
    """
    changes: dict[str, Any] = {}
    study = config.names.study
    if study is not None and study not in record.studies:
        changes["studies"] = sorted({*record.studies, study})
    if config.label is not None and config.label != record.encoder.label:
        changes["encoder"] = record.encoder.model_copy(update={"label": config.label})
    label = record.task.label
    if config.task_label is not None:
        label = config.task_label
        like_a_files = label.startswith(f"{record.task.name}: ")
        if record.config.get("task_label") != label and (label != record.task.label or like_a_files):
            changes["config"] = {**record.config, "task_label": label}
    elif _moved(record, config):
        now = column_label(config)
        label = now if now.startswith(f"{record.task.name}: ") else label
    if label != record.task.label:
        changes["task"] = record.task.model_copy(update={"label": label})
    return record.model_copy(update=changes) if changes else record


def _moved(record: Record, config: RunConfig) -> bool:
    """Whether the record's column has the name of a file that has another by now; its content is in the id."""
    then, now = ((tree.get("task") or {}).get("data") for tree in (record.config, {"task": config.task}))
    if not isinstance(then, dict) or not isinstance(now, dict):
        return False
    if not of_a_file(record.task.label, record.task.name, record.config, record.data):
        return False
    places = [value for key, value in then.items() if isinstance(value, str) and value != now.get(key)]
    left = [value for value in now.values() if isinstance(value, str)]
    file = Path(record.task.label.partition(": ")[2]).name
    return file in (Path(place).name for place in places) or file not in (Path(place).name for place in left)


def is_own(fact: DataFile) -> bool:
    """Whether a file is the user's, which has no address but its name."""
    return fact.url == f"file:{fact.name}"


def of_a_file(label: str, task: str, config: dict[str, Any], data: Sequence[DataFile]) -> bool:
    """Whether a record's column was named by SeqBench, of a file of the user's own that it reads, and not typed.

    The file may have been renamed since, so that the record knows another name; then a suffix makes it a file's. Such a
    name that was typed is in the record's config.
    """
    start, _, name = label.partition(": ")
    own = {fact.name for fact in data if is_own(fact)}
    if start != task or not name or not own or config.get("task_label") == label:
        return False
    places = (config.get("task") or {}).get("data")
    read = {Path(place).name for place in places.values() if isinstance(place, str)} if isinstance(places, dict) else ()
    file = Path(name)
    return file.name in own or file.name in read or bool(file.suffix)


def _short(place: str) -> str:
    """A file's or a folder's name; the name of a hub's set as it is."""
    path = Path(place).expanduser()
    if not path.exists():
        return place if len(path.parts) <= 2 and not path.is_absolute() else path.name
    path = path.resolve()
    return f"{path.parent.name}/{path.name}" if path.stem.lower() in PLAIN else path.name
