"""The verdicts as one HTML file that opens from disk, with the plots that the claims want."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2

from seqbench.board.page import embed, policy
from seqbench.claims import words
from seqbench.claims.sheet import Claim
from seqbench.claims.verdict import Judged, fits
from seqbench.errors import ConfigError

HERE = Path(__file__).parent
BOARD = HERE.parent / "board"
FILE = "index.html"


def write(
    claims: Mapping[str, Claim], verdicts: Mapping[str, Judged], out: Path, *, places: Mapping[str, str | None]
) -> Path:
    """Write the page and return its path. Raises ConfigError where the folder cannot be written to.

    `places` has for each claim the folder of configs that it is found in, None for those of configs/.
    """
    from seqbench.records.store import reason_of, write_atomic

    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / FILE, render(claims, verdicts, places).encode())
    except OSError as error:
        raise ConfigError(f"out: {out} cannot be written to ({reason_of(error)}); choose another: out=FOLDER") from None
    return out / FILE


def render(
    claims: Mapping[str, Claim], verdicts: Mapping[str, Judged], places: Mapping[str, str | None] = MappingProxyType({})
) -> str:
    """The whole file: claims that have a verdict, in order of name."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.loader = jinja2.FileSystemLoader(HERE)
    style = (BOARD / "board.css").read_text() + (HERE / "claims.css").read_text()
    script = '"use strict";\n' + "\n".join(path.read_text() for path in (BOARD / "svg.js", HERE / "claims.js"))
    shown = [
        (name, claim, verdicts[name])
        for name, claim in claims.items()
        if name in verdicts and fits(claim, verdicts[name])
    ]
    return environment.get_template("claims.html.jinja").render(
        shown=shown,
        places=places,
        words=words,
        style=style,
        script=script,
        policy=policy(style, script),
        data=embed([_plot(claim, judged) for _, claim, judged in shown]),
        zip=zip,
    )


def _plot(claim: Claim, judged: Judged) -> list[dict[str, Any]]:
    """What the page's script draws of a claim: its curves that have points."""
    curves = {curve.name: curve for curve in claim.curves}
    return [
        {
            "name": plot.name,
            "x": curves[plot.name].x,
            "y": curves[plot.name].y,
            "logX": curves[plot.name].log_x,
            "logY": curves[plot.name].log_y,
            "places": plot.places,
            "lines": [line.model_dump() for line in plot.lines],
        }
        for plot in judged.plots
        if plot.name in curves and any(line.dots for line in plot.lines)
    ]
