"""The command line: ``softmax-ext``, also ``python -m softmax_ext``.

Exit status: 0 for success, 1 for a failure, 2 for a bad command line, 130 for Ctrl-C, 141 where
the reader of standard output went away.
"""

from __future__ import annotations

import argparse
import codecs
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from .options import make_parser
from .shared import complain

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after the program's name; by default the process's own.

    Returns
    -------
    int
        The exit status.

    Raises
    ------
    SystemExit
        With 2 for a bad command line, and with 0 after ``--help`` and ``--version``.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)
    words = list(sys.argv[1:] if argv is None else argv)
    args = make_parser().parse_args(words)
    args.words = words
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        try:
            status = _command(args.command)(args)
            sys.stdout.flush()
        except KeyboardInterrupt as interrupt:
            complain(args, str(interrupt) or "interrupted")
            return 130
        except BrokenPipeError:
            _drop_unwritten()
            return 141
        except Exception as error:
            if args.debug:
                raise
            complain(args, f"error: {_one_line(error)}")
            _drop_unwritten()
            return 1
    return status


def _as_bytes_or_escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    """What a stream does with what it cannot encode, names of files and classes for example.

    Bytes that were no text when they came in go out as they were; the rest is escaped.
    """
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


_ERRORS = "softmax_ext"
codecs.register_error(_ERRORS, _as_bytes_or_escaped)


def _drop_unwritten() -> None:
    """Keep Python from trying at exit, and failing once more, to write what nobody can take."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_warning(message: Warning | str, *_: Any) -> None:
    print(f"softmax-ext: warning: {message}", file=sys.stderr)


def _one_line(error: Exception) -> str:
    """What went wrong, in one line."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    elif isinstance(error, MemoryError):
        text = f"not enough memory: {error}" if str(error) else "not enough memory"
    elif isinstance(error, OSError | ValueError | TypeError | IndexError | ImportError):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error} (--debug shows where)"
    return " ".join(text.split())


#: Where a command's function is, if not in a module of the command's name.
_MODULES = {"evaluate": "use", "predict": "use", "info": "data"}


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    """The function of a command; the modules of the others are not imported."""
    from importlib import import_module

    module = import_module(f".{_MODULES.get(name, name)}", __name__)
    function: Callable[[argparse.Namespace], int] = getattr(module, name)
    return function
