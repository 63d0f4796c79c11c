"""The measurements as Markdown: a summary, every contender's figures, and who was left out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchlib import environment

Record = dict[str, Any]

#: Columns of the summary beside ours: a heading and the library whose fastest contender it shows.
COLUMNS = {
    "reference": "reference",
    "NumPy": "numpy",
    "SciPy": "scipy",
    "PyTorch": "torch",
    "JAX": "jax",
    "scikit-learn": "sklearn",
    "bare": "bare",
}

#: Libraries ours is compared with; the bare products and copies do less than the job.
PEERS = ("reference", "numpy", "scipy", "torch", "jax", "sklearn")

NOTES = """\
Medians over interleaved rounds (A B C, B C A, C A B), all contenders on equal threads, every answer
checked against float64. *Reference* is `softmax_ext.reference`, written to be read; *NumPy* is the
same written for speed (in place, into arrays made once); *bare* is the matrix products alone, or a
copy alone, which is less than the job. *Peer / ours* is the fastest of reference, NumPy, SciPy,
PyTorch, JAX and scikit-learn over ours. *Share* is the part of what the machine allows, measured in
the same rounds: useful operations at the speed of multiply-adds in registers, or least memory
traffic at the speed of reading (of a copy, where much is written) with as many bytes in use,
whichever is slower. The ceilings are the best of samples taken between the contenders; an
exclamation mark says that half of those samples were below 90 % of the best, or that a share is
above 100 %: something else was running.
"""


PEAKS = """\
Each contender in a process of its own: how far it grows between the moment its inputs are there, in
the form it likes, and the end of its first call, with the results; and the quickest of three calls
after it, which took no turns with the others'.
"""


def seconds(value: float | None) -> str:
    """Write a duration with three significant digits and a unit that suits it."""
    if value is None:
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{_three(value / size)} {unit}"
    return f"{_three(value / 1e-9)} ns"


def size(value: float) -> str:
    """Write a number of bytes with three significant digits and a unit that suits it."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{_three(value / scale)} {unit}"
    return f"{value} bytes"


def _three(value: float) -> str:
    """Write a number with three significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def fastest(record: Record, libraries: Iterable[str]) -> Record | None:
    """Return the contender with the least median among `libraries`, if any took part."""
    wanted = set(libraries)
    found = [c for c in record["contenders"] if c["library"] in wanted]
    return min(found, key=lambda c: c["median"], default=None)


def ours_by_isa(record: Record) -> dict[str, Record]:
    """Return our figures by instruction set, the best first."""
    return {
        c["name"][len("ours [") : -1]: c
        for c in record["contenders"]
        if c["library"] == "ours" and c["name"].endswith("]")
    }


def share(contender: Record, record: Record) -> str:
    """Write the share of the ceiling, with a mark where it cannot be trusted."""
    doubt = record["ceiling"]["disturbed"] or contender["share"] > 1
    return f"{contender['share']:.0%}{' !' if doubt else ''}"


def ours(record: Record) -> Record | None:
    """Return our best instruction set's figures: those that ``ratio`` refers to."""
    return next((c for c in record["contenders"] if c["library"] == "ours"), None)


def summary_row(record: Record, one_thread: Record | None = None) -> dict[str, str]:
    """Return the summary's cells by heading."""
    row = {"job": f"`{record['op']}` {record['size']}", "N x D x C": record["shape"]}
    mine = ours(record)
    for isa, contender in ours_by_isa(record).items():
        row[f"ours [{isa}]"] = seconds(contender["median"])
    for heading, library in COLUMNS.items():
        contender = fastest(record, [library])
        row[heading] = seconds(contender["median"]) if contender else ""
    peer = fastest(record, PEERS)
    row["peer / ours"] = f"**{_three(peer['median'] / mine['median'])}**" if mine and peer else ""
    row["share"] = share(mine, record) if mine else ""
    if one_thread is not None:
        before = ours(one_thread)
        row["1 thread / this"] = _three(before["median"] / mine["median"]) if mine else ""
    return row


def summary(records: list[Record], one_thread: dict[str, Record] | None = None) -> str:
    """Return the summary table; with the records of one thread, also the gain over them."""
    before = one_thread or {}
    rows = [summary_row(record, before.get(name_of(record))) for record in records]
    headings = list(dict.fromkeys(heading for row in rows for heading in row))
    used = [heading for heading in headings if any(row.get(heading) for row in rows)]
    return table(used, [[row.get(heading, "") for heading in used] for row in rows], text=2)


def name_of(record: Record) -> str:
    return f"{record['op']}/{record['size']}"


def details(record: Record) -> str:
    """Return all figures of one workload."""
    kind = record["dtype"]
    if record["x_dtype"] not in (None, record["dtype"]):
        kind += f", X {record['x_dtype']}"
    if record["with_dX"]:
        kind += ", with dX"
    head = f"{record['shape']}, {kind}, {size(record['bytes'])}"
    head += f"; ceiling {ceiling(record)}"
    rows = [
        [
            c["name"],
            seconds(c["median"]),
            seconds(c["min"]),
            "" if c["ratio"] is None else _three(c["ratio"]),
            "" if c["gflops"] is None else _three(c["gflops"]),
            _three(c["gbps"]),
            f"{share(c, record)} of {c['bound']}",
            f"{c['rounds']} x {c['calls']}",
        ]
        for c in record["contenders"]
    ]
    headings = [
        "contender",
        "median",
        "min",
        "/ ours",
        "GFLOP/s",
        "GB/s",
        "share",
        "rounds x calls",
    ]
    return f"{head}\n\n{table(headings, rows, text=1)}"


def ceiling(record: Record) -> str:
    """Write both ceilings of a workload."""
    top = record["ceiling"]
    return (
        f"{_three(top['flops_per_second'] / 1e9)} GFLOP/s,"
        f" {_three(top['bytes_per_second'] / 1e9)} GB/s"
    )


def reasons(records: list[Record], kind: str) -> str:
    """Return who is in ``left_out`` or ``failed``, and why, each reason once."""
    found: dict[tuple[str, str], list[str]] = {}
    for record in records:
        for name, reason in record[kind].items():
            found.setdefault((name, reason), []).append(record["size"])
    return "\n".join(
        f"* {name}: {reason} ({'everywhere' if len(sizes) == len(records) else ', '.join(sizes)})"
        for (name, reason), sizes in found.items()
    )


def table(headings: list[str], rows: list[list[str]], *, text: int) -> str:
    """Return a Markdown table, padded to be read as it is; `text` columns are left-aligned."""
    widths = [max(len(cell) for cell in column) for column in zip(headings, *rows, strict=True)]

    def line(cells: list[str]) -> str:
        padded = [
            cell.ljust(width) if index < text else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if index < text else "-" * (w - 1) + ":" for index, w in enumerate(widths)]
    return "\n".join([line(headings), line(rule), *map(line, rows)])


def markdown(
    records: list[Record],
    described: dict[str, Any],
    goals: str,
    one_thread: dict[str, Record] | None = None,
    pictures: Iterable[str] = (),
    peaks: str = "",
) -> str:
    """Return the whole report; `goals` is its table of targets, `peaks` that of peak memory."""
    parts = ["# Benchmarks", "```\n" + "\n".join(environment.lines(described)) + "\n```", NOTES]
    if goals:
        parts += ["## Targets", goals]
    if peaks:
        parts += ["## Peak memory", PEAKS, peaks]
    parts.append("## Everybody's times")
    parts.append(summary(records, one_thread))
    parts += [f"![{name.rsplit('.', 1)[0]}]({name})" for name in pictures]
    operation = None
    for record in records:
        if record["op"] != operation:
            operation = record["op"]
            parts.append(f"## {operation}")
        parts += [f"### {record['size']}", details(record)]
    for kind, heading in (("failed", "## Failed"), ("left_out", "## Left out")):
        listed = reasons(records, kind)
        if listed:
            parts += [heading, listed]
    return "\n\n".join(part.strip() for part in parts) + "\n"
