"""What the kernels are meant to reach, beside what they did.

Where a goal says "peer", that is the fastest of the peers in the same rounds. Where a figure should
be large it is theirs / ours; where it should be small, ours / theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from benchlib import report

Record = dict[str, Any]
MIB = 1 << 20
GRADIENT = "linear_cross_entropy_with_grad"

#: With two threads, jobs that take one thread so long are to gain so much; the others nothing less.
LONG_SECONDS, LONG_GAIN = 2e-3, 1.7

IMPORT_RATIO = 1.3


class Goal(NamedTuple):
    """A figure for a workload, per instruction set (None: no goal)."""

    workload: str
    #: "peer", "numpy", "bare", "floats" (the same on a float32 X), "share", "seconds", "workspace".
    against: str
    avx512: float | None
    avx2: float | None
    baseline: float | None = None


def _rows_goals() -> Iterator[Goal]:
    for op in ("softmax", "log_softmax", "logsumexp"):
        for size, goal in (
            ("4096x10", 3.5),
            ("65536x10", 2.8),
            ("65536x32", 1.25),
            ("4096x100", 1.45),
            ("4096x1000", 1.5),
            ("256x50257", 1.3),
        ):
            yield Goal(f"{op}/rows-{size}", "peer", goal, goal)


GOALS = (
    Goal(f"{GRADIENT}/binary-2", "peer", 3.5, 3.5),
    Goal(f"{GRADIENT}/images-3", "peer", 4.5, 4.5),
    Goal(f"{GRADIENT}/mnist-10", "peer", 3.5, 2.7),
    Goal(f"{GRADIENT}/mnist-10", "share", 0.88, 0.88),
    Goal(f"{GRADIENT}/mnist-10", "numpy", None, None, 1.0),
    Goal(f"{GRADIENT}/images-16", "peer", 2.1, 1.7),
    Goal(f"{GRADIENT}/images-16", "share", 0.88, 0.88),
    Goal(f"{GRADIENT}/images-32", "peer", 1.45, 1.25),
    Goal(f"{GRADIENT}/images-100", "peer", 1.25, 1.05),
    Goal(f"{GRADIENT}/mnist-10-uint8", "floats", 1.1, 1.1),
    Goal(f"{GRADIENT}/mnist-10-batch-warm", "peer", 3.0, 3.0),
    Goal(f"{GRADIENT}/mnist-10-batch-cold", "peer", 2.2, 2.2),
    Goal("epoch/mnist-10", "peer", 2.4, 2.4),
    Goal("epoch/mnist-10-uint8", "peer", 3.0, 3.0),
    Goal(f"{GRADIENT}/text-1000", "bare", 1.0, 1.06),
    Goal(f"{GRADIENT}/text-1000", "workspace", 8 * MIB, 8 * MIB),
    Goal(f"{GRADIENT}/probe-100", "bare", 0.85, 0.85),
    Goal(f"{GRADIENT}/text-1000-float64", "bare", 1.03, 1.03),
    Goal(f"{GRADIENT}/vocab-50k", "bare", 1.0, 1.0),
    Goal(f"{GRADIENT}/vocab-50k", "workspace", 64 * MIB, 64 * MIB),
    *_rows_goals(),
    Goal("linear/mnist-10-test", "peer", 1.0, 1.0),
    Goal("predict/mnist-10-test", "peer", 1.0, 1.0),
    Goal("predict_proba/mnist-10-test", "peer", 1.0, 1.0),
    Goal("predict_proba/one-image", "numpy", 3.0, 3.0),
    Goal("softmax/small-8x10", "seconds", 1e-6, 1e-6),
)

AT_MOST = ("bare", "floats", "seconds", "workspace", "import")


class Outcome(NamedTuple):
    """A goal and what was measured; ``met`` says whether it was reached."""

    job: str
    isa: str
    against: str
    ours: str
    theirs: str
    figure: float
    goal: float
    ceiling: str = ""
    share: str = ""

    @property
    def met(self) -> bool:
        if self.against in AT_MOST:
            return self.figure <= self.goal
        return self.figure >= self.goal


def outcomes(
    records: list[Record],
    footprint: dict[str, Any],
    one_thread: dict[str, Record] | None = None,
) -> list[Outcome]:
    """Return every goal that was measured, in the order of the goals.

    With the records of one thread given, `records` are those of more: then the goals are the gains.
    """
    if one_thread is not None:
        return list(_gains(records, one_thread))
    found = []
    by_name = {report.name_of(record): record for record in records}
    for goal in GOALS:
        for isa in ("avx512", "avx2", "baseline"):
            wanted = getattr(goal, isa)
            if wanted is None:
                continue
            if goal.against == "workspace":
                bytes_used = footprint.get("workspace", {}).get(goal.workload, {}).get(isa)
                if bytes_used is not None:
                    found.append(_workspace(goal.workload, isa, bytes_used, wanted))
            elif goal.workload in by_name:
                found += _kernel(by_name[goal.workload], goal.against, isa, wanted)
    if "import" in footprint:
        ours, theirs = (footprint["import"][name] for name in ("softmax_ext", "numpy"))
        found.append(
            Outcome("import", "", "import", report.seconds(ours),
                    f"NumPy {report.seconds(theirs)}", ours / theirs, IMPORT_RATIO)
        )  # fmt: skip
    return found


def _workspace(job: str, isa: str, used: int, limit: float) -> Outcome:
    return Outcome(job, isa, "workspace", f"{used / MIB:.1f} MiB", "", used, limit)


def _kernel(record: Record, against: str, isa: str, wanted: float) -> list[Outcome]:
    """Return the outcome of a timed goal, or nothing where one side did not take part."""
    mine = report.ours_by_isa(record).get(isa)
    if mine is None:
        return []
    took = mine["median"]
    if against == "share":
        if mine["bound"] != "arithmetic":
            return []
        other, figure = "", mine["share"]
    elif against == "seconds":
        other, figure = "", took
    else:
        theirs = _theirs(record, against, isa)
        if theirs is None:
            return []
        other = f"{theirs['name']} {report.seconds(theirs['median'])}"
        figure = theirs["median"] / took
        if against in AT_MOST:
            figure = 1 / figure
    return [
        Outcome(
            report.name_of(record), isa, against, report.seconds(took), other, figure, wanted,
            report.ceiling(record), f"{report.share(mine, record)} of {mine['bound']}",
        )
    ]  # fmt: skip


def _theirs(record: Record, against: str, isa: str) -> Record | None:
    if against == "floats":
        name = f"ours [{isa}], X as floats"
        return next((c for c in record["contenders"] if c["name"] == name), None)
    return report.fastest(record, report.PEERS if against == "peer" else [against])


def _gains(records: list[Record], one_thread: dict[str, Record]) -> Iterator[Outcome]:
    for record in records:
        before = one_thread.get(report.name_of(record))
        if before is None:
            continue
        for isa, mine in report.ours_by_isa(record).items():
            alone = report.ours_by_isa(before).get(isa)
            if isa == "baseline" or alone is None:
                continue
            yield Outcome(
                report.name_of(record), isa, "one thread", report.seconds(mine["median"]),
                f"one thread {report.seconds(alone['median'])}", alone["median"] / mine["median"],
                LONG_GAIN if alone["median"] >= LONG_SECONDS else 1.0,
                report.ceiling(record), f"{report.share(mine, record)} of {mine['bound']}",
            )  # fmt: skip


def markdown(found: list[Outcome]) -> str:
    """Return the outcomes as a table, with the number of goals that were reached."""
    if not found:
        return ""
    headings = ["job", "table", "ours", "beside", "measured", "target", "met", "ceiling", "share"]
    rows = [
        [
            f"`{outcome.job}`", outcome.isa, outcome.ours, outcome.theirs,
            _figure(outcome, outcome.figure), f"{_sign(outcome)} {_figure(outcome, outcome.goal)}",
            "yes" if outcome.met else "**no**", outcome.ceiling, outcome.share,
        ]
        for outcome in found
    ]  # fmt: skip
    met = sum(outcome.met for outcome in found)
    table = report.table(headings, rows, text=2)
    return f"{met} of {len(found)} targets are met.\n\n{table}"


def _sign(outcome: Outcome) -> str:
    return "≤" if outcome.against in AT_MOST else "≥"


def _figure(outcome: Outcome, value: float) -> str:
    if outcome.against == "workspace":
        return f"{value / MIB:.1f} MiB"
    if outcome.against == "seconds":
        return report.seconds(value)
    return f"{value:.0%}" if outcome.against == "share" else f"{value:.2f}"
