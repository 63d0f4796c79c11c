#!/usr/bin/env python
"""Measure every kernel beside its peers; print the table and write it with its pictures.

    python bench/table.py                        everything, one thread (about 20 minutes)
    python bench/table.py --quick                the same with few rounds
    python bench/table.py --threads 2 --group mnist-10 --library ours --library numpy

Writes table-<threads>-thread.md, .json and pictures into --out; a run of some workloads only adds
"-part" to their names. The pytest benchmarks beside this file time the same contenders, but one
after another; compare with this table.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent

if TYPE_CHECKING:
    from benchlib.ceiling import Ceiling


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--threads", type=int, default=1, help="threads of every contender (default: 1)")
    add("--group", action="append", default=[], help="only workloads whose name or size starts so "
        "(may be repeated, as the next two)")  # fmt: skip
    add("--library", action="append", default=[], help="only this library's contenders")
    add("--isa", action="append", default=[], help="only this instruction set of ours")
    add("--align", choices=("numpy", "64"), default="numpy", help="where arrays start: 16 bytes "
        "after a 64-byte boundary, as NumPy's do (default), or on it")  # fmt: skip
    add("--quick", action="store_true", help="few rounds")
    add("--smoke", action="store_true", help="tiny sizes, two rounds: tries the machinery only")
    add("--no-pictures", action="store_true", help="write no pictures")
    add("--list", action="store_true", help="list the workloads and end")
    add("--out", type=Path, default=HERE / "results", help="where to write (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    options = arguments(argv)
    try:
        return run(options)
    except ValueError as error:
        print(f"table.py: {error}", file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    # The threads first: libraries read their number of threads when they are imported.
    from benchlib import threads

    threads.prepare(options.threads)
    from benchlib import environment, report, runners, timing, workloads

    chosen = workloads.select(options.group, tiny=options.smoke)
    if options.list:
        print("\n".join(f"{w.name:52} {w.shape}" for w in chosen))
        return 0
    settings = _settings(options)
    effort = timing.QUICK if options.quick else timing.NORMAL
    effort = timing.SMOKE if options.smoke else effort

    described = environment.describe()
    described["threads"] = options.threads
    described["arrays start"] = {"numpy": "64 k + 16 bytes", "64": "64 k bytes"}[options.align]
    ceiling = _ceiling(options.threads, described)
    runner = runners.runner(settings)
    try:
        print("\n".join(environment.lines(described)), flush=True)
        records: list[dict[str, Any]] = []
        try:
            for workload in chosen:
                records.append(timing.measure(workload, runner, ceiling, effort))
                _show(records[-1])
        except KeyboardInterrupt:
            if not records:
                raise
            print(f"\ninterrupted after {len(records)} of {len(chosen)} workloads", flush=True)
        described["threads of"] = runner.threads_found()
        _write(options, records, described)
    finally:
        runner.close()
        if ceiling is not None:
            ceiling.close()
    failed = report.reasons(records, "failed")
    if failed:
        print(f"\ntable.py: these failed:\n{failed}", file=sys.stderr)
    return 1 if failed else 0


def _settings(options: argparse.Namespace) -> Any:
    from benchlib import contenders, runners

    libraries = tuple(options.library) or contenders.LIBRARIES
    for library in libraries:
        if library not in contenders.LIBRARIES:
            raise ValueError(f"library: {library!r} is none of {', '.join(contenders.LIBRARIES)}")
    known = sum(contenders.isas(), ())
    for isa in options.isa:
        if isa not in known:
            raise ValueError(f"isa: {isa!r} is none of {', '.join(known)}")
    return runners.Settings(options.threads, libraries, tuple(options.isa), options.align)


def _ceiling(threads: int, described: dict[str, Any]) -> Ceiling | None:
    """Compile the ceilings' loops and add their speed before the run to the description."""
    from benchlib.ceiling import Ceiling, NoCompilerError

    try:
        ceiling = Ceiling(threads)
    except NoCompilerError as error:
        described["ceiling"] = str(error)
        return None
    for dtype in ("float32", "float64"):
        speeds = ", ".join(f"{isa} {ceiling.fma(dtype, isa) / 1e9:.0f}" for isa in ceiling.isas)
        described[f"multiply-add {dtype}, GFLOP/s"] = speeds
    described["copy, GB/s read + written"] = ", ".join(
        f"{name} {ceiling.copy(size) / 1e9:.0f}"
        for name, size in (
            ("16 KiB", 1 << 14),
            ("256 KiB", 1 << 18),
            ("4 MiB", 1 << 22),
            ("128 MiB", 1 << 27),
        )
    )
    return ceiling


def _show(record: dict[str, Any]) -> None:
    """Print one workload's figures as soon as they are there."""
    from benchlib import report

    print(f"\n{report.name_of(record)}: {report.details(record)}", flush=True)


def _write(options: argparse.Namespace, records: list[Any], described: dict[str, Any]) -> None:
    from benchlib import report

    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    tag = f"{options.threads}-thread{_kind(options)}"
    names = [] if options.no_pictures else _pictures(records, described, out, tag)
    with open(out / f"table-{tag}.json", "w", encoding="utf-8") as file:
        json.dump({"environment": described, "records": records}, file, indent=1)
    before = _one_thread_records(out, options) if options.threads > 1 else None
    text = report.markdown(records, described, before, names)
    (out / f"table-{tag}.md").write_text(text, encoding="utf-8")
    print(f"\n{report.summary(records, before)}\n\nwritten to {out}/table-{tag}.md", flush=True)


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
    if options.group or options.library or options.isa:
        kind += "-part"
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
