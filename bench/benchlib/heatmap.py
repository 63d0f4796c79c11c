"""The sweep as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter


def draw(
    features: Sequence[int],
    classes: Sequence[int],
    seconds_per_flop: Sequence[Sequence[float]],
    flagged: Sequence[tuple[int, int, float]],
    title: str,
    footer: str,
) -> Figure:
    """Draw picoseconds per useful operation, C across and D upwards, flagged cells framed."""
    values = np.asarray(seconds_per_flop) * 1e12
    size = max(8.0, 3 + 0.27 * len(classes)), max(4.5, 2 + 0.22 * len(features))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    # One power of ten at least, so that a flat map looks flat.
    norm = LogNorm(values.min(), max(values.max(), 10 * values.min()))
    image = axes.imshow(values, norm=norm, cmap="viridis_r", origin="lower", aspect="auto")
    for d, c, _ in flagged:
        corner = classes.index(c) - 0.5, features.index(d) - 0.5
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="#D55E00", linewidth=2))
    axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=8)
    axes.set_yticks(range(len(features)), features, fontsize=8)
    axes.set_xlabel("classes C")
    axes.set_ylabel("features D")
    framed = "framed: flagged" if flagged else "no cell flagged"
    axes.set_title(f"{title} ({framed})", fontsize=10)
    bar = figure.colorbar(image, label="picoseconds per useful operation (1000 / GFLOP/s)")
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    figure.supxlabel(footer, fontsize=8, color="0.4")
    return figure
