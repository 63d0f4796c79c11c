"""The measurements as Markdown: who wins, every contender's figures, and who was left out."""

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

#: A figure below this share of what another checkout had is told.
SLOWER_BELOW = 0.97

NOTES = """\
Medians over interleaved rounds (A B C, B C A, C A B), all contenders on equal threads, every answer
checked against float64. *Reference* is `softmax_ext.reference`, written to be read; *NumPy* is the
same written for speed (in place, into arrays made once); *bare* is the matrix products alone, a
copy alone, or an epoch's kernel calls alone, which is less than the job. *Peer / ours* is the
fastest of reference, NumPy, SciPy, PyTorch, JAX and scikit-learn over ours, in bold where we lose.
*Share* is the part of what the machine allows, measured in the same rounds: useful operations at
the speed of multiply-adds in registers, or least memory traffic at the speed of reading (of a copy,
where much is written) with as many bytes in use, whichever is slower. The ceilings are the best of
samples taken between the contenders; an exclamation mark says that half of those samples were below
90 % of the best, or that a share is above 100 %: something else was running.
"""

MEMORY = """\
Each contender in a process of its own: how far it grows between the moment its inputs are there, in
the form it likes, and the end of its first call, with the results; and the quickest of three calls
after it, which took no turns with the others'. *Workspace* is what ours allocates beyond results.
"""


def seconds(value: float | None) -> str:
    """Write a duration with three significant digits and a unit that suits it."""
    if value is None:
        return ""
    units = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))
    unit, size = next((u for u in units if value >= u[1]), units[-1])
    return f"{_three(value / size)} {unit}"


def size(value: float) -> str:
    """Write a number of bytes with three significant digits and a unit that suits it."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{_three(value / scale)} {unit}"
    return f"{value} bytes"


def _three(value: float | None) -> str:
    """Write a number with three significant digits, without an exponent."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def fastest(record: Record, libraries: Iterable[str]) -> Record | None:
    """Return the contender with the least median among `libraries`, if any took part."""
    found = [c for c in record["contenders"] if c["library"] in set(libraries)]
    return min(found, key=lambda c: c["median"], default=None)


def ours(record: Record) -> Record | None:
    """Return our best instruction set's figures: those that ``ratio`` refers to."""
    return next((c for c in record["contenders"] if c["library"] == "ours"), None)


def name_of(record: Record) -> str:
    return f"{record['op']}/{record['size']}"


def gain(record: Record) -> float | None:
    """Return the fastest peer's time over ours: below 1, we lose."""
    mine, peer = ours(record), fastest(record, PEERS)
    return peer["median"] / mine["median"] if mine and peer else None


def verdict(records: list[Record]) -> str:
    """Say in how many jobs nobody is faster than ours, and name the others."""
    gains = {name_of(record): gain(record) for record in records}
    measured = {name: value for name, value in gains.items() if value is not None}
    lost = [
        f"`{name_of(r)}` ({fastest(r, PEERS)['name']})"  # type: ignore[index]
        for r in records
        if measured.get(name_of(r), 1) < 1
    ]
    if not measured:
        return ""
    text = f"Fastest in {len(measured) - len(lost)} of {len(measured)} jobs."
    return f"{text} Lost: {', '.join(lost)}." if lost else text


def _share(contender: Record, record: Record) -> str:
    """Write the share of the ceiling, with a mark where it cannot be trusted."""
    doubt = record["ceiling"]["disturbed"] or contender["share"] > 1
    return f"{contender['share']:.0%}{' !' if doubt else ''}"


def summary_row(record: Record, one_thread: Record | None = None) -> dict[str, str]:
    """Return the summary's cells by heading."""
    row = {"job": f"`{record['op']}` {record['size']}", "N x D x C": record["shape"]}
    mine, peers = ours(record), gain(record)
    for contender in record["contenders"]:
        if contender["library"] in ("ours", "before") and contender["name"].endswith("]"):
            row[contender["name"]] = seconds(contender["median"])
    for heading, library in COLUMNS.items():
        contender = fastest(record, [library])
        row[heading] = seconds(contender["median"]) if contender else ""
    row["peer / ours"] = f"**{_three(peers)}**" if peers and peers < 1 else _three(peers)
    row["share"] = _share(mine, record) if mine else ""
    if one_thread is not None and mine:
        row["1 thread / this"] = _three(ours(one_thread)["median"] / mine["median"])  # type: ignore[index]
    return row


def summary(records: list[Record], one_thread: dict[str, Record] | None = None) -> str:
    """Return the summary table; with the records of one thread, also the gain over them."""
    before = one_thread or {}
    rows = [summary_row(record, before.get(name_of(record))) for record in records]
    headings = list(dict.fromkeys(heading for row in rows for heading in row))
    used = [heading for heading in headings if any(row.get(heading) for row in rows)]
    return table(used, [[row.get(heading, "") for heading in used] for row in rows], text=2)


def least_gain(record: Record) -> float:
    """Return the least of another checkout's times over ours; 1 where there is none."""
    return min((c["gain"] for c in record["contenders"] if "gain" in c), default=1.0)


def changes(records: list[Record]) -> str:
    """Return how another checkout's times compare with those here, if they were measured."""
    rows, slower = [], 0
    for record in records:
        by_name = {c["name"]: c for c in record["contenders"]}
        for c in record["contenders"]:
            if "gain" in c:
                here = by_name[c["name"].replace("before", "ours", 1)]
                value = f"{c['gain']:.3f}"
                slower += c["gain"] < SLOWER_BELOW
                rows.append([
                    f"`{name_of(record)}`", here["name"].removeprefix("ours "),
                    seconds(c["median"]), seconds(here["median"]),
                    f"**{value}**" if c["gain"] < SLOWER_BELOW else value,
                    f"{c['min'] / here['min']:.3f}",
                ])  # fmt: skip
    if not rows:
        return ""
    text = f"{slower} of {len(rows)} figures are below {SLOWER_BELOW} of before (in bold)."
    headings = ["job", "table", "before", "now", "before / now", "of the least times"]
    return f"{text}\n\n{table(headings, rows, text=2)}"


def details(record: Record) -> str:
    """Return all figures of one workload."""
    kind = record["dtype"]
    if record["x_dtype"] not in (None, record["dtype"]):
        kind += f", X {record['x_dtype']}"
    kind += ", with dX" if record["with_dX"] else ""
    top = record["ceiling"]
    head = (
        f"{record['shape']}, {kind}, {size(record['bytes'])};"
        f" ceiling {_three(top['flops_per_second'] / 1e9)} GFLOP/s,"
        f" {_three(top['bytes_per_second'] / 1e9)} GB/s"
    )
    rows = [
        [
            c["name"], seconds(c["median"]), seconds(c["min"]), _three(c["ratio"]),
            _three(c["gflops"]), _three(c["gbps"]), f"{_share(c, record)} of {c['bound']}",
            f"{c['rounds']} x {c['calls']}",
        ]
        for c in record["contenders"]
    ]  # fmt: skip
    headings = ["contender", "median", "min", "/ ours", "GFLOP/s", "GB/s", "share",
                "rounds x calls"]  # fmt: skip
    return f"{head}\n\n{table(headings, rows, text=1)}"


def footprint(found: dict[str, Any]) -> str:
    """Return the import's time, and peak memory by workload as tables."""
    parts = []
    if "import" in found:
        mine, numpy = found["import"]["softmax_ext"], found["import"]["numpy"]
        parts.append(
            f"Importing the package takes {seconds(mine)}, NumPy alone {seconds(numpy)}: "
            f"{mine / numpy:.2f} times as long."
        )
    headings = ["contender", "peak memory", "/ ours", "workspace", "time", "/ ours"]
    for name, records in found.get("peak", {}).items():
        (first, *_) = records or [None]
        rows = [
            [
                r["name"], size(r["bytes"]), f"{r['bytes'] / first['bytes']:.2f}",
                "" if r["workspace"] is None else f"{r['workspace'] / (1 << 20):.1f} MiB",
                seconds(r["seconds"]), f"{r['seconds'] / first['seconds']:.2f}",
            ]
            for r in records
        ]  # fmt: skip
        parts += [f"`{name}`", table(headings, rows, text=1)] if rows else []
    return "\n\n".join(parts)


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
    found: dict[str, Any],
    one_thread: dict[str, Record] | None = None,
    pictures: Iterable[str] = (),
) -> str:
    """Return the whole report; `found` is what `footprint` shows."""
    parts = [
        "# Benchmarks", "```\n" + "\n".join(environment.lines(described)) + "\n```", NOTES,
        verdict(records), summary(records, one_thread) if records else "",
        *(f"![{name.rsplit('.', 1)[0]}]({name})" for name in pictures),
    ]  # fmt: skip
    for heading, text in (
        ("## Beside the other checkout", changes(records)),
        ("## Import and peak memory", footprint(found) and f"{MEMORY}\n{footprint(found)}"),
        ("## Failed", reasons(records, "failed")),
    ):
        parts += [heading, text] if text else []
    for op in dict.fromkeys(record["op"] for record in records):
        parts.append(f"## {op}")
        for record in records:
            if record["op"] == op:
                parts += [f"### {record['size']}", details(record)]
    left_out = reasons(records, "left_out")
    parts += ["## Left out", left_out] if left_out else []
    return "\n\n".join(part.strip() for part in parts if part) + "\n"
