"""The measurements as pictures: bars beside peers, an overview and a roofline."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from benchlib import report

Record = dict[str, Any]

#: Okabe and Ito's palette: told apart with every kind of colour vision.
COLOURS = {
    "ours": "#0072B2",
    "reference": "#999999",
    "numpy": "#56B4E9",
    "scipy": "#CC79A7",
    "torch": "#D55E00",
    "jax": "#009E73",
    "sklearn": "#E69F00",
    "bare": "#000000",
}

#: Shapes for the pictures of points, so that colour is not the only mark.
MARKERS = {
    "ours": "D",
    "reference": "x",
    "numpy": "s",
    "scipy": "P",
    "torch": "^",
    "jax": "o",
    "sklearn": "v",
    "bare": "|",
}

HEADINGS = {library: heading for heading, library in report.COLUMNS.items()}


def write_all(records: list[Record], described: dict[str, Any], out: Path, tag: str) -> list[str]:
    """Write every picture the records allow and return the files' names."""
    footer = f"{described['CPU']}, {described['threads']} thread(s); medians"
    names = []
    if any(report.ours(record) for record in records):
        names.append(_save(overview(records, footer), out, f"overview-{tag}.png"))
    for op in dict.fromkeys(record["op"] for record in records):
        chosen = [record for record in records if record["op"] == op]
        names.append(_save(bars(op, chosen, footer), out, f"bars-{op}-{tag}.png"))
    if any(record["flops"] and record["ceiling"] for record in records):
        names.append(_save(roofline(records, footer), out, f"roofline-{tag}.png"))
    return names


def _save(figure: Figure, out: Path, name: str) -> str:
    figure.savefig(out / name, dpi=120)
    return name


def _figure(width: float, height: float) -> Figure:
    """Return a figure of its own, without pyplot's list of open ones."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def bars(op: str, records: list[Record], footer: str) -> Figure:
    """Draw one panel per size: a bar per contender, its time beside it.

    Where the slowest takes more than 20 times the fastest, the axis is logarithmic.
    """
    columns = min(3, len(records))
    lines = math.ceil(len(records) / columns)
    most = max(len(record["contenders"]) for record in records)
    figure = _figure(4.6 * columns, 0.7 + lines * (0.75 + 0.24 * most))
    figure.suptitle(op, fontweight="bold")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in panels[len(records) :]:
        axes.set_axis_off()
    for axes, record in zip(panels, records, strict=False):
        _bar_panel(axes, record)
    figure.supxlabel(footer, fontsize=8, color="0.4")
    return figure


def _bar_panel(axes: Axes, record: Record) -> None:
    contenders = record["contenders"]
    times = [c["median"] for c in contenders]
    places = range(len(contenders))
    colours = [COLOURS[c["library"]] for c in contenders]
    axes.barh(places, times, color=colours, height=0.72)
    axes.set_yticks(places, [c["name"] for c in contenders], fontsize=8)
    axes.invert_yaxis()
    largest = max(times)
    if largest > 20 * min(times):
        axes.set_xscale("log")
        lowest = min(times) / 2
        axes.set_xlim(lowest, largest * (largest / lowest) ** 0.28)
    else:
        axes.set_xlim(0, largest * 1.28)
    for place, value in zip(places, times, strict=True):
        axes.annotate(
            report.seconds(value), (value, place), (3, 0), textcoords="offset points",
            va="center", fontsize=8,
        )  # fmt: skip
    scale = ", log scale" if axes.get_xscale() == "log" else ""
    axes.set_title(f"{record['size']}  ({record['shape']}{scale})", fontsize=9, loc="left")
    axes.xaxis.set_major_locator(FixedLocator([]))
    axes.xaxis.set_minor_locator(FixedLocator([]))
    _plain(axes)
    axes.spines["bottom"].set_visible(False)


def overview(records: list[Record], footer: str) -> Figure:
    """Draw a line per workload with every library's time as a multiple of ours."""
    shown = [record for record in records if report.ours(record)]
    figure = _figure(9.5, 1.6 + 0.24 * len(shown))
    axes = figure.subplots()
    values = [1.0]
    for library in reversed(COLOURS):
        found = [(report.fastest(record, [library]), y) for y, record in enumerate(shown)]
        if library == "ours":
            found = [(report.ours(record), y) for y, record in enumerate(shown)]
        points = [(c["ratio"], y) for c, y in found if c is not None]
        if not points:
            continue
        values += [x for x, _ in points]
        axes.plot(
            *zip(*points, strict=True), MARKERS[library], color=COLOURS[library],
            label=HEADINGS[library], markersize=9 if library == "bare" else 6,
            markeredgewidth=2 if library in ("bare", "reference") else 0.5,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 1.25, max(values) * 1.25)
    _plain_log_ticks(axes, min(values), max(values))
    axes.axvline(1, color=COLOURS["ours"], linewidth=1, zorder=0)
    axes.set_yticks(range(len(shown)), [f"{r['op']}  {r['size']}" for r in shown], fontsize=8)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(axis="both", color="0.9")
    axes.set_axisbelow(True)
    axes.set_xlabel("time as a multiple of ours: to the right of 1 is slower than softmax_ext")
    _plain(axes)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles[::-1], labels[::-1], loc="outside upper center", ncols=8, frameon=False, fontsize=8
    )
    figure.supxlabel(footer, fontsize=8, color="0.4")
    return figure


def _plain_log_ticks(axes: Axes, low: float, high: float) -> None:
    """Put 1, 2, 5, 10, 20 ... on a logarithmic axis, as plain numbers."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 1000 else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def roofline(records: list[Record], footer: str) -> Figure:
    """Draw useful GFLOP/s against operations per byte, under the two measured ceilings.

    Every workload has a number, so that no label covers another; ours are the filled marks, the
    fastest peer of the same workload the hollow ones below or above it.
    """
    shown = [record for record in records if record["flops"] and record["ceiling"]]
    figure = _figure(11.0, max(5.5, 1.2 + 0.2 * len(shown)))
    axes, key = figure.subplots(1, 2, width_ratios=(3, 1.35))
    intensities = [record["flops"] / record["bytes"] for record in shown]
    left, right = min(intensities) / 2, max(intensities) * 2
    _draw_ceilings(axes, shown, left, right)
    lowest = math.inf
    for number, (record, x) in enumerate(zip(shown, intensities, strict=True), start=1):
        mine, peer = report.ours(record), report.fastest(record, report.PEERS)
        if peer:
            axes.plot(x, peer["gflops"], "o", mfc="white", mec=COLOURS["torch"], markersize=11)
            axes.annotate(str(number), (x, peer["gflops"]), fontsize=6, ha="center", va="center")
            lowest = min(lowest, peer["gflops"])
        if mine:
            axes.plot(x, mine["gflops"], "o", color=COLOURS["ours"], markersize=11)
            axes.annotate(
                str(number), (x, mine["gflops"]), fontsize=6, color="white", ha="center",
                va="center",
            )  # fmt: skip
            lowest = min(lowest, mine["gflops"])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, right)
    axes.set_ylim(bottom=lowest / 2)
    axes.set_xlabel("useful operations per byte of least memory traffic")
    axes.set_ylabel("useful GFLOP/s")
    axes.grid(color="0.92")
    _plain(axes)
    axes.plot([], [], "o", color=COLOURS["ours"], label="softmax_ext")
    axes.plot([], [], "o", mfc="white", mec=COLOURS["torch"], label="fastest peer")
    axes.legend(loc="lower right", fontsize=8)
    key.set_axis_off()
    names = [f"{n:2}  {r['op']}\n      {r['size']}" for n, r in enumerate(shown, start=1)]
    key.text(0, 1, "\n".join(names), va="top", fontsize=6.5, family="monospace")
    figure.supxlabel(footer, fontsize=8, color="0.4")
    return figure


def _draw_ceilings(axes: Axes, records: list[Record], left: float, right: float) -> None:
    """Draw the arithmetic ceilings as level lines and the copy's as slanted ones."""
    largest = max(records, key=lambda record: record["bytes"])
    smallest = min(records, key=lambda record: record["bytes"])
    flops = {
        record["dtype"]: record["ceiling"]["flops_per_second"] / 1e9 for record in reversed(records)
    }
    for dtype, value in flops.items():
        axes.hlines(value, left, right, color="0.25", linewidth=1.2)
        axes.annotate(f"multiply-add, {dtype}: {value:.0f} GFLOP/s", (right, value), (-4, 3),
                      textcoords="offset points", ha="right", fontsize=8)  # fmt: skip
    top = max(flops.values())
    for record, style in ((largest, "-"), (smallest, ":")):
        speed = record["ceiling"]["bytes_per_second"] / 1e9
        end = min(right, top / speed)
        axes.plot(
            [left, max(left, end)], [left * speed, max(left, end) * speed], style, color="0.25",
            linewidth=1.2, label=f"copy, {record['bytes'] / 1e6:.3g} MB: {speed:.0f} GB/s",
        )  # fmt: skip
