#!/usr/bin/env python
"""Measure every kernel beside its peers; print the table and write it with its pictures.

    python bench/table.py                        everything, with one thread, then with two
    python bench/table.py --quick                the same with few rounds
    python bench/table.py --threads 2 --only mnist-10 --library ours --library numpy
    python bench/table.py --against ../before    ours beside the build of another checkout

Writes table-<threads>-thread.md, .json and pictures into --out; a run of some workloads only adds
"-part" to their names.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchlib import options as shared

#: What is measured beside the workloads, in processes of its own.
FOOTPRINT = ("import", "peak")

#: How often a job is measured at most before it is told as slower than that of another checkout:
#: where arrays lie in memory makes several percent, and a kernel that became slower stays so.
TRIES = 3


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = shared.parser(__doc__)
    shared.add_isa(parser)
    add = parser.add_argument
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        cpus = os.cpu_count() or 1
    add("--threads", type=int, nargs="+", default=[1, 2][:cpus], help="threads of every "
        "contender, a run for each number (default: 1, then 2 with two CPUs)")  # fmt: skip
    add("--only", action="append", default=[], help="only workloads whose name or size starts so; "
        "import and peak count as workloads (may be repeated)")  # fmt: skip
    add("--library", action="append", default=[], help="only this library's contenders "
        "(may be repeated)")  # fmt: skip
    add("--against", default="", metavar="PATH", help="another checkout whose build of the "
        "package takes turns with ours (alone, unless --library names others)")  # fmt: skip
    add("--align", choices=("numpy", "64"), default="numpy", help="where arrays start: 16 bytes "
        "after a 64-byte boundary, as NumPy's do (default), or on it")  # fmt: skip
    add("--quick", action="store_true", help="few rounds: some minutes")
    add("--no-pictures", action="store_true", help="write no pictures")
    add("--list", action="store_true", help="list the workloads and end")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    options = arguments(argv)
    if len(options.threads) > 1 and not options.list:
        # Each in a process of its own: libraries read their threads when they are imported.
        given = sys.argv[1:] if argv is None else argv
        command = [sys.executable, __file__, *given, "--threads"]
        return max(subprocess.call([*command, str(n)]) for n in options.threads)
    (options.threads, *_) = options.threads
    return shared.main("table.py", run, options)


def run(options: argparse.Namespace) -> int:
    # The threads first: libraries read their number of threads when they are imported.
    from benchlib import threads

    threads.prepare(options.threads)
    from benchlib import environment, report, runners, timing, workloads

    from softmax_ext.ceiling import Ceiling

    patterns = [pattern for pattern in options.only if pattern not in FOOTPRINT]
    chosen = workloads.select(patterns, tiny=options.smoke) if patterns or not options.only else []
    if options.list:
        print("\n".join(f"{w.name:52} {w.shape}" for w in chosen))
        return 0
    settings = _settings(options)
    effort = timing.QUICK if options.quick else timing.NORMAL
    effort = timing.SMOKE if options.smoke else effort
    described = environment.describe() | {"threads": options.threads}
    described["arrays start"] = {"numpy": "64 k + 16 bytes", "64": "64 k bytes"}[options.align]
    if settings.against:
        described["before"] = settings.against
    runner = runners.runner(settings)
    ceiling = Ceiling(options.threads)
    try:
        described |= _ceilings(ceiling)
        print("\n".join(environment.lines(described)), flush=True)
        records: list[dict[str, Any]] = []
        try:
            for workload in chosen:
                found = [timing.measure(workload, runner, ceiling, effort)]
                while report.least_gain(found[-1]) < report.SLOWER_BELOW and len(found) < TRIES:
                    found.append(timing.measure(workload, runner, ceiling, effort))
                records.append(max(found, key=report.least_gain))
                text = report.details(records[-1])
                print(f"\n{report.name_of(records[-1])}: {text}", flush=True)
        except KeyboardInterrupt:
            if not records:
                raise
            print(f"\ninterrupted after {len(records)} of {len(chosen)} workloads", flush=True)
        described["threads of"] = runner.threads_found()
        _write(options, records, _footprint(options, settings), described)
    finally:
        runner.close()
        ceiling.close()
    failed = report.reasons(records, "failed")
    if failed:
        print(f"\ntable.py: these failed:\n{failed}", file=sys.stderr)
    return 1 if failed else 0


def _settings(options: argparse.Namespace) -> Any:
    from benchlib import contenders, runners

    against = shared.checkout(options.against)
    default = ("ours",) if against else contenders.LIBRARIES
    libraries = tuple(options.library) or default
    for library in libraries:
        if library not in contenders.LIBRARIES:
            raise ValueError(f"library: {library!r} is none of {', '.join(contenders.LIBRARIES)}")
    libraries += ("before",) if against else ()
    isas = shared.isas(options.isa)
    return runners.Settings(options.threads, libraries, isas, options.align, against)


def _ceilings(ceiling: Any) -> dict[str, str]:
    """Return the machine's ceilings for the description, the best of some samples each."""

    def best(measure: Any, *args: Any) -> str:
        return f"{max(measure(*args) for _ in range(9)) / 1e9:.0f}"

    sizes = {"16 KiB": 1 << 14, "256 KiB": 1 << 18, "4 MiB": 1 << 22, "128 MiB": 1 << 27}
    listed = {
        f"multiply-add {dtype}, GFLOP/s": best(ceiling.arithmetic, dtype)
        for dtype in ("float32", "float64")
    }
    for name, measure in (("read", ceiling.read), ("copy, read + written", ceiling.copy)):
        speeds = [f"{text} {best(measure, size)}" for text, size in sizes.items()]
        listed[f"{name}, GB/s"] = ", ".join(speeds)
    return listed


def _footprint(options: argparse.Namespace, settings: Any) -> dict[str, Any]:
    """Measure the import and peak memory, where they are wanted."""
    from benchlib import footprint, workloads

    found: dict[str, Any] = {}
    wanted = options.only or ([] if settings.against else FOOTPRINT)
    if "import" in wanted:
        found["import"] = footprint.import_seconds(3 if options.quick or options.smoke else 21)
    if "peak" in wanted:
        found["peak"] = {
            workload.name: footprint.memory(
                workload.tiny() if options.smoke else workload, settings
            )
            for workload in workloads.WORKLOADS
            if workload.name in workloads.MEMORY
        }
    return found


def _write(
    options: argparse.Namespace,
    records: list[Any],
    found: dict[str, Any],
    described: dict[str, Any],
) -> None:
    from benchlib import report

    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    tag = f"{options.threads}-thread{_kind(options)}"
    names = [] if options.no_pictures or not records else _pictures(records, described, out, tag)
    before = _one_thread_records(out, options) if options.threads > 1 else None
    with open(out / f"table-{tag}.json", "w", encoding="utf-8") as file:
        written = {"environment": described, "footprint": found, "records": records}
        json.dump(written, file, indent=1)
    text = report.markdown(records, described, found, before, names)
    (out / f"table-{tag}.md").write_text(text, encoding="utf-8")
    parts = [
        report.summary(records, before) if records else "", report.verdict(records),
        report.changes(records), report.footprint(found),
    ]  # fmt: skip
    print("\n" + "\n\n".join(filter(None, parts)), flush=True)
    print(f"\nwritten to {out}/table-{tag}.md", flush=True)


def _pictures(records: list[Any], described: dict[str, Any], out: Path, tag: str) -> list[str]:
    try:
        from benchlib import pictures
    except ImportError as error:
        print(f"no pictures: {error}", file=sys.stderr)
        return []
    return pictures.write_all(records, described, out, tag)


def _kind(options: argparse.Namespace) -> str:
    """Return what to add to the files' names, so that no run overwrites one of another kind."""
    kind = "" if options.align == "numpy" else "-aligned"
    kind += "-against" if options.against else ""
    kind += f"-{os.environ['SOFTMAX_EXT_ISA']}" if os.environ.get("SOFTMAX_EXT_ISA") else ""
    kind += "-part" if options.only or options.library or options.isa else ""
    return kind + ("-smoke" if options.smoke else "")


def _one_thread_records(out: Path, options: argparse.Namespace) -> dict[str, Any] | None:
    """Return the records of an earlier run of this kind with one thread, by name, if any."""
    from benchlib import report

    path = out / f"table-1-thread{_kind(options)}.json"
    if not path.exists():
        return None
    records = json.loads(path.read_text(encoding="utf-8"))["records"]
    return {report.name_of(record): record for record in records}


if __name__ == "__main__":
    raise SystemExit(main())
