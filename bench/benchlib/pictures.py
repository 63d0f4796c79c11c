"""The measurements as pictures: bars beside peers, an overview and a roofline."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
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

#: Operations shown under the roofline: those made of matrix products.
ROOFLINE_OPS = ("linear_cross_entropy_with_grad", "epoch")

HEADINGS = {"ours": "ours"} | {library: heading for heading, library in report.COLUMNS.items()}


def write_all(records: list[Record], described: dict[str, Any], out: Path, tag: str) -> list[str]:
    """Write every picture the records allow and return the files' names."""
    plural = "" if described["threads"] == 1 else "s"
    footer = f"{described['CPU']}, {described['threads']} thread{plural}; medians"
    names = []
    if any(report.ours(record) for record in records):
        names.append(_save(overview(records, footer), out, f"overview-{tag}.png"))
    for op in dict.fromkeys(record["op"] for record in records):
        chosen = [record for record in records if record["op"] == op]
        names.append(_save(bars(op, chosen, footer), out, f"bars-{op}-{tag}.png"))
    under = [r for r in records if r["op"] in ROOFLINE_OPS and r["contenders"]]
    if under:
        names.append(_save(roofline(under, footer), out, f"roofline-{tag}.png"))
    return names


def _save(figure: Figure, out: Path, name: str) -> str:
    figure.savefig(out / name, dpi=120)
    return name


def _figure(width: float, height: float) -> Figure:
    """Return a figure of its own, without pyplot's list of open ones."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
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
    mine = report.ours(record)
    for place, contender in zip(places, contenders, strict=True):
        # Paler: our other instruction sets. Hollow: what does less than the job.
        colour = COLOURS[contender["library"]]
        axes.barh(
            place, contender["median"], height=0.72, edgecolor=colour, linewidth=1,
            color="white" if contender["library"] == "bare" else colour,
            alpha=0.55 if contender["library"] == "ours" and contender is not mine else 1,
        )  # fmt: skip
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
    _plain_log_ticks(axes.xaxis, min(values), max(values))
    axes.axvline(1, color=COLOURS["ours"], linewidth=1, zorder=0)
    axes.set_yticks(range(len(shown)), [f"{r['op']}  {r['size']}" for r in shown], fontsize=8)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    for y in range(1, len(shown)):
        if shown[y]["op"] != shown[y - 1]["op"]:
            axes.axhline(y - 0.5, color="0.8", linewidth=0.8, zorder=0)
    axes.set_xlabel("time as a multiple of ours: to the right of 1 is slower than softmax_ext")
    _plain(axes)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles[::-1], labels[::-1], loc="outside upper center", ncols=8, frameon=False, fontsize=8
    )
    figure.supxlabel(footer, fontsize=8, color="0.4")
    return figure


def _plain_log_ticks(axis: Axis, low: float, high: float) -> None:
    """Put 1, 2, 5, 10, 20 ... on a logarithmic axis, as plain numbers."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 1000 else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def roofline(records: list[Record], footer: str) -> Figure:
    """Draw useful GFLOP/s against operations per byte, under the measured ceilings.

    Workloads of about one intensity share a vertical line; their numbers, above it, are in the
    order of our speed (or, without ours, of the fastest peer's).
    """
    figure = _figure(11.0, max(5.5, 1.5 + 0.2 * len(records)))
    axes, key = figure.subplots(1, 2, width_ratios=(3, 1.3))
    points: list[tuple[float, float, int]] = []
    lowest = math.inf
    for number, record in enumerate(records, start=1):
        x = record["flops"] / record["bytes"]
        mine, peer = report.ours(record), report.fastest(record, report.PEERS)
        if peer:
            axes.plot(x, peer["gflops"], "o", mfc="white", mec=COLOURS["torch"], markersize=7)
        if mine:
            axes.plot(x, mine["gflops"], "D", color=COLOURS["ours"], markersize=7)
        speeds = [contender["gflops"] for contender in (mine, peer) if contender]
        if speeds:
            lowest = min(lowest, *speeds)
            points.append((x, speeds[0], number))
    left, right = min(points)[0] / 2, max(points)[0] * 2
    top = _draw_ceilings(axes, records, left, right)
    for x, numbers in _columns(points):
        axes.axvline(x, color="0.85", linewidth=0.8, zorder=0)
        axes.annotate(
            numbers, (x, 1), (0, 3), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="center", fontsize=8,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, right)
    axes.set_ylim(lowest / 1.5, top * 1.5)
    _plain_log_ticks(axes.xaxis, left, right)
    _plain_log_ticks(axes.yaxis, lowest, top)
    axes.set_xlabel("useful operations per byte of least memory traffic")
    axes.set_ylabel("useful GFLOP/s")
    axes.grid(axis="y", color="0.92")
    _plain(axes)
    axes.plot([], [], "D", color=COLOURS["ours"], label="softmax_ext")
    axes.plot([], [], "o", mfc="white", mec=COLOURS["torch"], label="fastest peer")
    key.legend(*axes.get_legend_handles_labels(), loc="lower left", fontsize=8, frameon=False)
    key.set_axis_off()
    names = [
        f"{number:2}  {'epoch ' if record['op'] == 'epoch' else ''}{record['size']}"
        for number, record in enumerate(records, start=1)
    ]
    key.text(0, 1, "\n".join(names), va="top", fontsize=8, family="monospace")
    figure.suptitle("linear_cross_entropy_with_grad and the epoch under the machine's ceilings")
    figure.supxlabel(footer, fontsize=8, color="0.4")
    return figure


def _columns(points: list[tuple[float, float, int]]) -> list[tuple[float, str]]:
    """Group points (x, speed, number) closer than 15 % to their column's first."""
    columns: list[list[tuple[float, float, int]]] = []
    for point in sorted(points):
        if columns and point[0] < 1.15 * columns[-1][0][0]:
            columns[-1].append(point)
        else:
            columns.append([point])
    return [
        (
            math.sqrt(column[0][0] * column[-1][0]),
            "\n".join(str(n) for _, _, n in sorted(column, key=lambda p: p[1], reverse=True)),
        )
        for column in columns
    ]


def _draw_ceilings(axes: Axes, records: list[Record], left: float, right: float) -> float:
    """Draw arithmetic as level lines and memory as slanted ones; return the top in GFLOP/s."""
    flops = {
        record["dtype"]: record["ceiling"]["flops_per_second"] / 1e9 for record in reversed(records)
    }
    for dtype, value in flops.items():
        axes.hlines(value, left, right, color="0.25", linewidth=1.2)
        axes.annotate(
            f"multiply-add, {dtype}: {value:.0f} GFLOP/s", (right, value), (-4, 3),
            textcoords="offset points", ha="right", fontsize=8,
        )  # fmt: skip
    top = max(flops.values())
    by_size = sorted(records, key=lambda record: record["bytes"])
    for record, style in ((by_size[-1], "-"), (by_size[0], ":")):
        speed = record["ceiling"]["bytes_per_second"] / 1e9
        end = max(left, min(right, top / speed))
        axes.plot(
            [left, end], [left * speed, end * speed], style, color="0.25", linewidth=1.2,
            label=f"memory, {report.size(record['bytes'])}: {speed:.0f} GB/s",
        )  # fmt: skip
    return top
