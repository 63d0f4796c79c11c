"""Prints what the tests need, each package in the oldest series that pyproject.toml allows.

    python tools/oldest.py [torch]

That is the first one with its bound's numbers: `numpy>=1.25` becomes `numpy==1.25.*`. PyTorch only
where it is asked for.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

# Of the tests' own tools, whose age nobody depends on.
NEWEST = {"pytest", "hypothesis", "pytest-benchmark", "build", "nbclient", "ipykernel"}


def oldest(requirement: str) -> str:
    """The requirement with its lower bound for the version."""
    package, bound, marker = re.fullmatch(
        r"([\w.\-]+(?:\[[\w,]+\])?)>=([\d.]+)[^;]*(;.*)?", requirement
    ).groups()
    return requirement if package in NEWEST else f"{package}=={bound}.*{marker or ''}"


def main() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *extras["cli"]]
    wanted += project["dependency-groups"]["test"] + (
        extras["torch"] if "torch" in sys.argv else []
    )
    print(*map(oldest, wanted), sep="\n")


if __name__ == "__main__":
    main()
