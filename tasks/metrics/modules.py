"""Metrics as modules of the `evaluate` library: the same scores through its add_batch and compute, offline."""

from __future__ import annotations

import inspect
from functools import cache
from typing import TYPE_CHECKING, Any

from tasks.metrics.base import Metric

if TYPE_CHECKING:
    import evaluate


def as_evaluate(metric: Metric, **settings: Any) -> evaluate.Metric:
    """An `evaluate.Metric` whose compute() gives {metric.name: metric.score(...)}, without a hub or a network.

    `settings` are those of `evaluate.Metric` (`keep_in_memory`, `experiment_id`, `num_process`, ...). Predictions and
    references may have any form that a task of this project gives; which one is told by the first row. Whole numbers
    reach the metric as floats. Importing `evaluate` takes seconds, and happens here, at the first call.
    """
    return _module_class(type(metric))(metric=metric, **settings)


def _form(value: Any) -> Any:
    """The feature that holds a value: texts, numbers, lists of them of any depth, a ranking."""
    from datasets import Sequence as Many
    from datasets import Value

    if isinstance(value, str):
        return Value("string")
    if isinstance(value, dict):
        return {key: Many(Value("int64")) if key == "top" else Value("float64") for key in value}
    if hasattr(value, "__len__"):
        return Many(_form(value[0] if len(value) else ""))
    return Value("float64")


def _features(prediction: Any, reference: Any) -> Any:
    from datasets import Features

    return Features({"predictions": _form(prediction), "references": _form(reference)})


@cache
def _module_class(kind: type[Metric]) -> type[evaluate.Metric]:
    import evaluate

    class Module(evaluate.Metric):  # type: ignore[misc]
        """One metric of the project."""

        def __init__(self, *, metric: Metric, **settings: Any) -> None:
            self.metric = metric
            super().__init__(**settings)

        def _info(self) -> Any:
            return evaluate.MetricInfo(
                description=inspect.getdoc(kind) or "",
                citation="",
                inputs_description=f"{kind.__name__}.statistics: {inspect.getdoc(kind.statistics)}",
                features=[_features(value, value) for value in ("", 0.0, [""], [0.0], [[0.0]])],
            )

        def _infer_feature_from_example(self, example: dict[str, Any]) -> Any:
            # evaluate's own way, the first form that does not raise, takes lists for texts and texts for numbers
            return _features(example["predictions"], example["references"])

        def _compute(self, *, predictions: Any, references: Any) -> dict[str, float]:
            return {self.metric.name: self.metric.score(predictions, references)}

    Module.__name__ = Module.__qualname__ = kind.__name__  # evaluate names the module after its class
    return Module
