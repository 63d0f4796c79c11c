"""The measurements as pictures: beside peers, over shapes, along a fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from benchlib import report

Record = dict[str, Any]

#: Okabe and Ito's palette, told apart with every kind of colour vision; and a shape for each, so
#: that colour is not the only mark.
LOOKS = {
    "ours": ("#0072B2", "D"),
    "before": ("#56606B", "d"),
    "reference": ("#999999", "x"),
    "numpy": ("#56B4E9", "s"),
    "scipy": ("#CC79A7", "P"),
    "torch": ("#D55E00", "^"),
    "jax": ("#009E73", "o"),
    "sklearn": ("#E69F00", "v"),
    "bare": ("#000000", "|"),
}
HEADINGS = {library: heading for heading, library in report.COLUMNS.items()}


def write_all(records: list[Record], described: dict[str, Any], out: Path, tag: str) -> list[str]:
    """Write every picture the records allow and return the files' names."""
    plural = "" if described["threads"] == 1 else "s"
    footer = f"{described['CPU']}, {described['threads']} thread{plural}; medians"
    figures = {}
    if any(report.ours(record) for record in records):
        figures["overview"] = overview([r for r in records if report.ours(r)], footer)
    for op in dict.fromkeys(record["op"] for record in records):
        figures[f"bars-{op}"] = bars(op, [r for r in records if r["op"] == op], footer)
    for name, figure in figures.items():
        figure.savefig(out / f"{name}-{tag}.png", dpi=120)
    return [f"{name}-{tag}.png" for name in figures]


def _figure(width: float, height: float, footer: str) -> Figure:
    """Return a figure of its own, without pyplot's list of open ones."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    FigureCanvasAgg(figure)
    figure.supxlabel(footer, fontsize=8, color="0.4")
    return figure


def _plain(axes: Axes, *sides: str) -> None:
    for side in ("top", "right", *sides):
        axes.spines[side].set_visible(False)


def bars(op: str, records: list[Record], footer: str) -> Figure:
    """Draw one panel per size: a bar per contender, its time beside it.

    Where the slowest takes more than 20 times the fastest, the axis is logarithmic.
    """
    columns = min(3, len(records))
    lines = math.ceil(len(records) / columns)
    most = max(len(record["contenders"]) for record in records)
    figure = _figure(4.6 * columns, 0.7 + lines * (0.75 + 0.24 * most), footer)
    figure.suptitle(op, fontweight="bold")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in panels[len(records) :]:
        axes.set_axis_off()
    for axes, record in zip(panels, records, strict=False):
        if record["contenders"]:
            _bar_panel(axes, record)
    return figure


def _bar_panel(axes: Axes, record: Record) -> None:
    contenders, mine = record["contenders"], report.ours(record)
    times = [c["median"] for c in contenders]
    for place, contender in enumerate(contenders):
        # Paler: our other instruction sets. Hollow: what does less than the job.
        library = contender["library"]
        colour = LOOKS[library][0]
        axes.barh(
            place, contender["median"], height=0.72, edgecolor=colour, linewidth=1,
            color="white" if library == "bare" else colour,
            alpha=0.55 if library == "ours" and contender is not mine else 1,
        )  # fmt: skip
        axes.annotate(
            report.seconds(contender["median"]), (contender["median"], place), (3, 0),
            textcoords="offset points", va="center", fontsize=8,
        )  # fmt: skip
    axes.set_yticks(range(len(times)), [c["name"] for c in contenders], fontsize=8)
    axes.invert_yaxis()
    logarithmic = max(times) > 20 * min(times)
    if logarithmic:
        axes.set_xscale("log")
        low = min(times) / 2
        axes.set_xlim(low, max(times) * (max(times) / low) ** 0.28)
    else:
        axes.set_xlim(0, max(times) * 1.28)
    scale = ", log scale" if logarithmic else ""
    axes.set_title(f"{record['size']}  ({record['shape']}{scale})", fontsize=9, loc="left")
    axes.xaxis.set_major_locator(FixedLocator([]))
    axes.xaxis.set_minor_locator(FixedLocator([]))
    _plain(axes, "bottom")


def overview(records: list[Record], footer: str) -> Figure:
    """Draw a line per workload with every library's time as a multiple of ours."""
    figure = _figure(9.5, 1.6 + 0.24 * len(records), footer)
    axes = figure.subplots()
    values = [1.0]
    for library, (colour, marker) in reversed(LOOKS.items()):
        best = [
            report.ours(r) if library == "ours" else report.fastest(r, [library]) for r in records
        ]
        points = [(c["ratio"], y) for y, c in enumerate(best) if c is not None]
        if not points:
            continue
        values += [x for x, _ in points]
        axes.plot(
            *zip(*points, strict=True), marker, color=colour, label=HEADINGS.get(library, library),
            markersize=9 if library == "bare" else 6,
            markeredgewidth=2 if library in ("bare", "reference") else 0.5,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 1.25, max(values) * 1.25)
    _plain_log_ticks(axes.xaxis, min(values), max(values))
    axes.axvline(1, color=LOOKS["ours"][0], linewidth=1, zorder=0)
    axes.set_yticks(range(len(records)), [f"{r['op']}  {r['size']}" for r in records], fontsize=8)
    axes.set_ylim(len(records) - 0.5, -0.5)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    for y in range(1, len(records)):
        if records[y]["op"] != records[y - 1]["op"]:
            axes.axhline(y - 0.5, color="0.8", linewidth=0.8, zorder=0)
    axes.set_xlabel("time as a multiple of ours: to the right of 1 is slower than softmax_ext")
    _plain(axes)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles[::-1], labels[::-1], loc="outside upper center", ncols=8, frameon=False, fontsize=8
    )
    return figure


def _plain_log_ticks(axis: Axis, low: float, high: float) -> None:
    """Put 1, 2, 5, 10, 20 ... on a logarithmic axis, as plain numbers."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 1000 else (1,)
    axis.set_major_locator(FixedLocator([step * 10.0**d for d in decades for step in steps]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def heatmap(
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
    figure = _figure(*size, footer)
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
    return figure


def fits(everything: dict[str, dict[str, Any]], footer: str) -> Figure:
    """Draw the gap to the lowest objective against time, a panel per problem.

    `everything` has, by problem and contender, the points (seconds, objective) of its way.
    """
    figure = _figure(4.2 * len(everything), 3.6, footer)
    panels = figure.subplots(1, len(everything), squeeze=False)[0]
    for axes, (name, curves) in zip(panels, everything.items(), strict=True):
        lowest = min(value for curve in curves.values() for _, value in curve)
        for contender, curve in curves.items():
            gaps = [(t, value / lowest - 1) for t, value in curve]
            axes.plot(*zip(*gaps, strict=True), "-" if len(gaps) > 1 else "o", label=contender)
        axes.set(title=name, xlabel="seconds", xscale="log", yscale="log", ylim=(1e-6, 10))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("objective above the lowest, relative")
    panels[0].legend(loc="lower left", fontsize="small")
    return figure
