"""What the scripts of this folder share: options of the same name, and errors in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).resolve().parent.parent / "results"


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every script has; `doc` is the script's."""
    made = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    add = made.add_argument
    add("--isa", action="append", default=[], help="instruction set of ours (may be repeated)")
    add("--smoke", action="store_true", help="tiny sizes: tries the machinery only")
    add("--out", type=Path, default=RESULTS, help="where to write (default: %(default)s)")
    return made


def check_isas(given: list[str]) -> None:
    """Raise ValueError if this build has not got one of these instruction sets."""
    import softmax_ext

    known = softmax_ext.compiled_isas()
    for isa in given:
        if isa not in known:
            raise ValueError(f"isa: {isa!r} is none of {', '.join(known)}")


def main(name: str, run: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Return the exit status of `run`: 2, with one line on stderr, if it raises ValueError."""
    try:
        return run(options)
    except ValueError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
