"""The board as a Weights & Biases table; offline or online as WANDB_MODE says, without it as there is an account."""

from __future__ import annotations

import os

from seqbench.board.csv_table import FIELDS, lines
from seqbench.board.model import Board
from seqbench.errors import ConfigError
from seqbench.training.loggers import has_account

SILENT = "WANDB_SILENT"


def log(board: Board, *, project: str) -> list[str]:
    """Log the cells as a table of a run of its own, finish it, and say in a line or two which and where it is.

    Raises ConfigError, of two lines, where W&B can't be had.
    """
    import wandb

    os.environ.setdefault(SILENT, "true")
    mode = os.environ.get("WANDB_MODE") or ("online" if has_account() else "offline")
    try:
        run = wandb.init(
            project=project,
            job_type="leaderboard",
            name=f"board {board.title}",
            reinit="finish_previous",
            mode=mode,  # type: ignore[arg-type]  # W&B says itself what modes there are
            settings=wandb.Settings(silent=True, console="off"),
        )
        try:
            rows = [[line[field] for field in FIELDS] for line in lines(board)]
            run.log({"leaderboard": wandb.Table(columns=list(FIELDS), data=rows, allow_mixed_types=True)})
            for row in board.rows:
                if row.mean_rank is not None:
                    run.summary[f"mean_rank/{row.label}"] = row.mean_rank
            name, folder = str(run.id), os.path.relpath(str(run.dir) + "/..")
        finally:
            run.finish()
    except (wandb.Error, ValueError, OSError) as error:
        what = " ".join(str(error).split())[:160] or type(error).__name__
        raise ConfigError(
            f"wandb: the table could not be logged ({what});\n"
            "`wandb login` gives this machine an account, WANDB_MODE=offline needs none; the other files are written"
        ) from None
    if mode == "online":
        return [f"wandb: run {name}"]
    if mode != "offline":
        return [f"wandb: run {name} ({mode})"]
    return [f"wandb: run {name}, kept offline in {folder}", f"wandb: `wandb sync {folder}` sends it, with an account"]
