"""Numbers, bounds and verdicts as people read them; the table of docs/claims.md."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping

from seqbench.claims.estimate import Estimate
from seqbench.claims.sheet import Claim, Comparison
from seqbench.claims.verdict import Judged, Outcome, fits

UNITS = {"_ms": "ms", "seconds": "s", "_mib": "MiB"}  # by how a quantity's name ends


def number(value: float) -> str:
    """Four digits, as few as needed: 0.0123, 12.35, 12,350, 1.235e+09."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"


def shown(estimate: Estimate | None) -> str:
    """`-0.012 (-0.031 to 0.007)`."""
    if estimate is None:
        return "–"
    if estimate.basis == "counted":
        return f"{number(estimate.value)} (counted)"
    if estimate.low is None or estimate.high is None:
        return f"{number(estimate.value)} (no interval: one seed)"
    return f"{number(estimate.value)} ({number(estimate.low)} to {number(estimate.high)})"


def basis(estimate: Estimate) -> str:
    """`3 seeds, interval over seeds and examples`, `3 seeds, counted alike for each`."""
    seeds = f"{estimate.seeds} seed{'' if estimate.seeds == 1 else 's'}"
    if estimate.basis == "counted":
        return f"{seeds}, counted alike for each"
    return seeds if estimate.basis == "one seed" else f"{seeds}, interval over {estimate.basis}"


def bound(comparison: Comparison) -> str:
    """`at least -0.01`, `1.2 to 1.5`, or nothing."""
    low, high = comparison.at_least, comparison.at_most
    if low is not None and high is not None:
        return f"{number(low)} to {number(high)}"
    if low is not None:
        return f"at least {number(low)}"
    return "" if high is None else f"at most {number(high)}"


def measure(comparison: Comparison) -> str:
    """`a - b of test/accuracy`, `a / b of the exponent of cost/flops_forward over task.length`."""
    what = comparison.of
    if comparison.exponent_over is not None:
        what = f"the exponent of {what} over {comparison.exponent_over}"
    if comparison.b is None:
        return what
    return f"{'a / b' if comparison.by == 'ratio' else 'a - b'} of {what}"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def command(name: str, config_dir: str | None = None) -> str:
    """What makes it again; of a claim of a user's own with the folder that has it."""
    own = "" if config_dir is None else f" --config-dir {shlex.quote(config_dir)}"
    return f"python scripts/claims.py{own} claim={name}"


def said(comparison: Comparison, outcome: Outcome) -> str:
    """The verdict on a comparison; `beside` for one that does not decide."""
    return outcome.verdict if comparison.decides else "beside"


def side(value: float, comparison: Comparison) -> str:
    """The number of a side, with its unit where the name of the quantity tells it: `66.67 ms`."""
    ends = () if comparison.exponent_over is not None else UNITS.items()
    unit = next((unit for ending, unit in ends if comparison.of.endswith(ending)), "")
    return f"{number(value)} {unit}".rstrip()


def table(claims: Mapping[str, Claim], verdicts: Mapping[str, Judged]) -> str:
    """All claims that have a verdict, as a Markdown table, then what each comparison came to."""
    rows = ["| claim | statement | published | verdict | command | runs, time |", f"|{'---|' * 6}"]
    details = []
    counts: Counter[str] = Counter()
    for name, claim in claims.items():
        judged = verdicts.get(name)
        if judged is None:
            continue
        if not fits(claim, judged):
            stale = (name, claim.statement, claim.published, "its file has changed since", f"`{command(name)}`", "")
            rows.append(f"| {' | '.join(_cell(text) for text in stale)} |")
            continue
        counts[judged.verdict] += 1
        took = f"{len(judged.ids)}, {duration(judged.seconds)}"
        cells = (name, claim.statement, claim.published, f"**{judged.verdict}**", f"`{command(name)}`", took)
        rows.append(f"| {' | '.join(_cell(text) for text in cells)} |")
        details += ["", f"### {claim.title}", claim.paper, ""]
        details += ["| comparison | measured | claimed | here (95 % interval) | a | b | |", f"|{'---|' * 7}"]
        for comparison, outcome in zip(claim.comparisons, judged.outcomes, strict=True):
            found = outcome.estimate
            b = "" if found is None or found.b is None else side(found.b, comparison)
            cells7 = (
                comparison.name,
                measure(comparison),
                bound(comparison) or comparison.published or "",
                shown(found),
                "" if found is None else side(found.a, comparison),
                b,
                said(comparison, outcome),
            )
            details.append(f"| {' | '.join(_cell(text) for text in cells7)} |")
        details += ["", *([claim.reading.strip(), ""] if claim.reading else [])]
    told = ", ".join(f"{number} {verdict}" for verdict, number in counts.most_common())
    return "\n".join([*([f"{told}.", ""] if told else []), *rows, *details, ""])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
