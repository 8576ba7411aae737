"""Tables and pictures for docs/."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # the backend has to be chosen before


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|--:" * (len(heads) - 1) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def plot(
    series: Mapping[str, Sequence[tuple[float, float]]],
    path: Path,
    *,
    x: str,
    y: str,
    log_x: bool = False,
    each_style: int = 10,
) -> None:
    """Lines with a legend, as PNG. So many follow each other in one style, by colour; the next ones
    have the same colours, dashed."""
    figure, axes = pyplot.subplots(figsize=(7, 4.2), dpi=110)
    for index, (name, points) in enumerate(series.items()):
        axes.plot(
            *zip(*points, strict=True),
            color=f"C{index % each_style}",
            linestyle=("solid", "dashed")[index // each_style],
            marker="o",
            markersize=3,
            label=name,
        )
    if log_x:
        axes.set_xscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
