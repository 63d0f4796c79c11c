"""What the documentation shows runs: the blocks of its pages, and the notebooks.

The blocks of a page run one after the other in one interpreter, in an empty folder. A block
``text`` right under one of code is what that prints; ``...`` stands for anything. Commands of the
shell run too, but for those that build, install or measure.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import nbclient
import nbformat
import pytest

import softmax_ext

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "notebooks" not in page]
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
OPTIONAL = ("torch", "sklearn", "scipy", "PIL", "jax", "dask", "onnx", "onnxruntime", "skl2onnx")

FENCE = re.compile(
    r"^```(?P<language>python|sh|text|\{code-cell\} ipython3)\n(?P<code>.*?)^```$", re.M | re.S
)
RUNNABLE = re.compile(r"(softmax-ext|python|cat|head|ls|cc|\./classify)\b")

#: Runs the blocks; a failure names the line of the page.
PROGRAM = """
import contextlib, doctest, io, subprocess
namespace = {"__name__": "__main__"}
flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
for block in BLOCKS:
    place = f"{PAGE}, line {block['line']}"
    said = io.StringIO()
    if block["language"] == "sh":
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", block["code"]],
                              capture_output=True, text=True)
        assert not done.returncode, f"{place}: {done.stdout}{done.stderr}"
        said.write(done.stdout)
    else:
        lined_up = "\\n" * block["line"] + block["code"]
        with contextlib.redirect_stdout(said):
            exec(compile(lined_up, PAGE, "exec"), namespace)
    if block["wanted"] is not None:
        same = doctest.OutputChecker().check_output(block["wanted"], said.getvalue(), flags)
        assert same, f"{place}: printed\\n{said.getvalue()}\\ninstead of\\n{block['wanted']}"
"""


class Block(NamedTuple):
    line: int  # of the fence
    language: str  # python or sh
    code: str
    wanted: str | None  # what it prints, where the page shows that


def blocks(page: str) -> list[Block]:
    """The code of a page that can run here."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found: list[Block] = []
    end = 0
    for fence in FENCE.finditer(text):
        line, language, code = text[: fence.start()].count("\n") + 1, *fence.groups()
        if language == "text":
            if found and not text[end : fence.start()].strip():
                found[-1] = found[-1]._replace(wanted=code)
            continue
        end = fence.end()
        if language.startswith("{"):  # a cell of the site's: its options, then commands with a !
            code = re.sub(r"^(:.*\n)|^!", "", code, flags=re.M)
            language = "sh"
        if language == "sh" and not all(
            RUNNABLE.match(part) for part in code.splitlines() if part[:1] not in (" ", "#", "")
        ):
            continue
        found.append(Block(line, language, code, None))
    return found


def skip_without_packages(code: str) -> None:
    for name in OPTIONAL:
        imported = re.search(rf"^\s*(import|from) (softmax_ext\.)?{name}\b", code, flags=re.M)
        if imported and importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")


def skip_without_data() -> None:
    try:
        softmax_ext.datasets.load_fashion_mnist(download=False)
    except FileNotFoundError:
        pytest.skip("Fashion-MNIST is not on this machine")


def surroundings() -> dict[str, str]:
    """With the package and its command in reach, wherever the page runs."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    package = str(Path(softmax_ext.__file__).parents[1])
    here = {"PATH": path, "PYTHONPATH": package, "MPLBACKEND": "agg", "OPENBLAS_NUM_THREADS": "1"}
    return {**os.environ, **here}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_page_runs_as_written(page, tmp_path):
    shown = blocks(page)
    code = "\n".join(block.code for block in shown)
    skip_without_packages(code)
    if "fashion_mnist" in code:
        skip_without_data()
    program = f"PAGE, BLOCKS = {page!r}, {[block._asdict() for block in shown]!r}\n{PROGRAM}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        env=surroundings(),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr


def test_readme_shows_python_first():
    assert blocks("README.md")[0].language == "python"


# Notebooks ------------------------------------------------------------------------------------

#: Put in front of a notebook, to run it as on a machine without Fashion-MNIST and a network.
WITHOUT_DATA = """
from softmax_ext import datasets

def _missing(*args, **options):
    raise FileNotFoundError("Fashion-MNIST: not on this machine")

datasets.load_fashion_mnist = _missing
"""


def notebook(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / name, as_version=4)


ANSWER = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)


@pytest.mark.filterwarnings("default")  # of the machinery; the kernel has its own
@pytest.mark.parametrize("data", ["fashion-mnist", "none"])
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs_from_top_to_bottom(name, data, tmp_path, monkeypatch):
    nb = notebook(name)
    skip_without_packages("\n".join(cell.source for cell in nb.cells))
    if data == "none":
        nb.cells.insert(0, nbformat.v4.new_code_cell(WITHOUT_DATA))
    else:
        skip_without_data()
    # The code of the folded answers follows on the last cell.
    prose = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    nb.cells += [nbformat.v4.new_code_cell(code) for code in ANSWER.findall(prose)]
    # Warnings are errors, but for those of the kernel's own shutdown.
    nb.cells.insert(0, nbformat.v4.new_code_cell("import warnings; warnings.simplefilter('error')"))
    nb.cells.append(nbformat.v4.new_code_cell("warnings.simplefilter('ignore')"))
    for variable, value in surroundings().items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("MPLBACKEND")  # the notebook's own
    client = nbclient.NotebookClient(
        nb, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # raises where a cell does
    shown = [output for cell in nb.cells for output in cell.get("outputs", [])]
    assert not [text.text for text in shown if text.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in shown)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_committed_clean(name):
    nb = notebook(name)
    nbformat.validate(nb)
    assert (nb.nbformat, nb.nbformat_minor) == (4, 5)
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert set(nb.metadata) == {"kernelspec", "language_info"}
    ids = [cell.id for cell in nb.cells]
    assert len(set(ids)) == len(ids)
    assert nb.cells[0].source.startswith("# ")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_ends_with_exercises_and_folded_answers(name):
    text = "\n".join(cell.source for cell in notebook(name).cells if cell.cell_type == "markdown")
    exercises = text[text.index("## Exercises") :]
    asked = re.findall(r"^\*\*\d+\.", exercises, flags=re.M)
    assert len(asked) >= 3
    assert exercises.count("<details>") == exercises.count("</details>") >= len(asked)
