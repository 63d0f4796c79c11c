"""What the scripts of this folder share: options of the same name, and errors in one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).resolve().parent.parent / "results"


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every script has; `doc` is the script's."""
    made = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    made.add_argument("--smoke", action="store_true", help="tiny sizes: tries the machinery only")
    made.add_argument("--out", type=Path, default=RESULTS, help="where to write (%(default)s)")
    return made


def add_isa(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--isa", action="append", help="instruction set of ours (may be repeated; default: "
        "$SOFTMAX_EXT_ISA, else all)",
    )  # fmt: skip


def isas(given: list[str] | None) -> tuple[str, ...]:
    """Return the instruction sets asked for; ValueError if this build has not got one of them."""
    import softmax_ext

    chosen = given or list(filter(None, [os.environ.get("SOFTMAX_EXT_ISA")]))
    known = softmax_ext.compiled_isas()
    for isa in chosen:
        if isa not in known:
            raise ValueError(f"isa: {isa!r} is none of {', '.join(known)}")
    return tuple(chosen)


def checkout(path: str) -> str:
    """Return the folder of another checkout; ValueError if no package was built there."""
    folder = Path(path).resolve()
    if path and not list(folder.glob("softmax_ext/_kernels*.so")):
        raise ValueError(f"against: no softmax_ext was built in {path}")
    return str(folder) if path else ""


def main(name: str, run: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Return the exit status of `run`: 2, with one line on stderr, if it raises ValueError."""
    try:
        return run(options)
    except ValueError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
