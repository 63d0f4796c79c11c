"""What is said of an environment variable that cannot be gone by, when the package is imported."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def refuse(name: str, why: object) -> NoReturn:
    """Raise ImportError; of the command line, which shows no tracebacks, end with one line.

    It imports this before its own first line; of ``python -m softmax_ext`` Python knows no more
    than the "-m" at that time.
    """
    message = f"environment variable {name}: {why}"
    if os.path.basename((sys.argv or [""])[0]) in ("softmax-ext", "-m"):
        sys.exit(f"softmax-ext: error: {message}")
    raise ImportError(message) from None
