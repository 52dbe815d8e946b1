"""Which keys decide a result, of sections that are hashed in part: ids and rows of boards go by the same ones."""

from __future__ import annotations

# Each with its reason.
TRAINER = (
    "precision",  # other roundings, other weights
    "accumulate",  # a step's batch in parts: sums in another order, other dropout masks
    "clip",  # scales gradients
)
TRAINER_IF_SET = (
    "padding_free",
    "tf32",
    "compile",
)  # other roundings and dropout masks; came later, runs of before keep their ids
BATCHES_OF_EVALUATION = "eval_batch_tokens"  # how many rows are evaluated together changes no score
BUDGET_WITHOUT = (
    BATCHES_OF_EVALUATION,
    *("match", "target", "vary", "count", "tolerance", "matched"),  # what they solve stands in the encoder's node
)
BUDGET_IF_SET = ("tokens", "flops", "seconds")  # came later: runs of before keep their ids
