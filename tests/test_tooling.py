"""What the documents say is true, and the commands they name are there."""

from __future__ import annotations

import ast
import doctest
import graphlib
import importlib
import importlib.util
import itertools
import os
import pkgutil
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import softmax_ext

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "src/README.md", "bench/README.md"]
DOCUMENTS += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
FOLDERS = ["docs", "notebooks", "src", "softmax_ext", "tests", "bench", "tools", ".ci"]
#: Not there before make, or the page itself, wrote them.
WRITTEN = r"^(demo|bench/results|\.venv|build|dist)(/|$)|^table-|^classify\.c$"
TARGETS = {"demo", "test", "bench", "lint", "docs", "build", "peers", "clean", "distclean"}
TARGETS |= {"fuzz", "soak", "asan", "tsan", "test-arm", "test-oldest", "test-free-threaded"}
TARGETS |= {"wheel", "cross"}

#: Every module of every package but the command's own entrance.
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(softmax_ext.__path__, "softmax_ext.")
    if not module.name.endswith("__main__")
)


def text(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def shell_commands(document: str) -> list[str]:
    blocks = re.findall(r"^```(?:sh|bash|console)\n(.*?)^```$", text(document), flags=re.M | re.S)
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"(?ms)^```.*?^```$", "", text(document)))
    return [line.strip() for block in blocks for line in block.splitlines()] + spans


def run(*command, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        **options,
    )


def test_readme_shows_the_two_commands():
    commands = [line.split("#")[0].strip() for line in shell_commands("README.md")]
    assert commands[:2] == ["make demo", "make test"]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_make_knows_target(target):
    done = run("make", "--dry-run", target, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_only_targets_that_are(document):
    named = {
        word
        for command in shell_commands(document)
        if re.match(r"make\s", command)
        for word in command.split("#")[0].split('"')[0].split()[1:]
        if "=" not in word
    }
    assert named <= TARGETS


def named_files(document: str) -> set[str]:
    """Links of a document, and words in backquotes that look like a file of the project."""
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text(document))
    words = {word.strip("'\"(),;:") for span in shell_commands(document) for word in span.split()}
    # <isa> and * stand for several names; a leading - is an option, a $ a variable.
    words = {word.split("::")[0] for word in words if not re.search(r"[<>*{}$=]|^[/~-]|://", word)}
    ours = re.compile(
        r"^(src|softmax_ext|tests|bench|tools|\.ci)/"
        r"|\w\.(py|pyx|pxd|pyi|md|c|h|inc|toml|sh)$"
    )
    return {link for link in links if not re.match(r"[a-z]+:", link)} | set(
        filter(ours.search, words)
    )


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_only_files_that_are(document):
    """Files may be named by their last parts: ops.py is softmax_ext/ops.py."""
    ends = set()
    for folder in (ROOT, *(ROOT / name for name in FOLDERS)):
        for path in folder.glob("*") if folder == ROOT else folder.rglob("*"):
            parts = path.relative_to(ROOT).parts
            ends |= {"/".join(parts[i:]) for i in range(len(parts))}
    missing = {
        name
        for name in named_files(document)
        if name.removeprefix("../").rstrip("/") not in ends and not re.search(WRITTEN, name)
    }
    assert not missing


def test_tiers_name_files_of_tests_that_are():
    tiers = runpy.run_path(str(ROOT / "tests" / "conftest.py"))["TIERS"]
    for subject in itertools.chain(*tiers.values()):
        assert (ROOT / "tests" / f"test_{subject}.py").is_file(), subject


def test_changelog_tells_of_this_version():
    assert re.search(
        rf"^## \[{re.escape(softmax_ext.__version__)}\] - \d{{4}}-\d\d-\d\d$",
        text("CHANGELOG.md"),
        flags=re.M,
    )


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name):
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        if error.name is None or error.name.startswith("softmax_ext"):
            raise
        pytest.skip(f"{name} needs {error.name}, which is not installed")
    globs = {"np": np, "sx": softmax_ext}
    failed, _ = doctest.testmod(module, extraglobs=globs)
    assert not failed


def imported_parts(path: Path, parts: set[str]) -> set[str]:
    """The parts of the package that a file imports, also later on or for its types alone."""
    folders = list(path.relative_to(ROOT).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = folders[: len(folders) + 1 - node.level] if node.level else []
            base = base + (node.module or "").split(".") * bool(node.module)
            found |= {(*base, alias.name)[1] for alias in node.names if base[0] == "softmax_ext"}
        elif isinstance(node, ast.Import):
            found |= {n.name.split(".")[1] for n in node.names if n.name.startswith("softmax_ext.")}
    return found & parts


def test_parts_of_the_package_import_each_other_in_no_circle():
    files = {
        path: path.relative_to(ROOT / "softmax_ext").with_suffix("").parts[0]
        for path in (ROOT / "softmax_ext").rglob("*.py")
        if path != ROOT / "softmax_ext/__init__.py"  # which has the names of all
    }
    graph: dict[str, set[str]] = {part: set() for part in files.values()}
    for path, part in files.items():
        graph[part] |= imported_parts(path, set(graph)) - {part}
    assert {"model", "plots"} <= graph["training"]
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_make_builds_with_the_declared_build_requirements():
    """`make` builds without isolation; its environment must hold what isolation would."""
    assert PROJECT["dependency-groups"]["build"] == PROJECT["build-system"]["requires"]


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "tools").glob("*.sh")))
def test_tool_is_a_shell_script_that_can_run(script):
    path = ROOT / "tools" / script
    assert os.access(path, os.X_OK)
    shell = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("#!")
    assert shell in ("/bin/sh", "/bin/bash")
    done = run(shell, "-n", path)
    assert done.returncode == 0, done.stderr


def fake(folder: Path, name: str, script: str) -> Path:
    """A command of the test's own."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_make_venv_wants_an_interpreter(tmp_path):
    done = run(ROOT / "tools/make_venv.sh", "no-such-python", tmp_path / "venv")
    assert done.returncode != 0
    assert "no interpreter 'no-such-python'" in done.stderr
    assert "install Python 3.10" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_make_venv_refuses_an_old_interpreter(tmp_path):
    old = fake(tmp_path, "python", "exit 1")
    done = run(ROOT / "tools/make_venv.sh", old, tmp_path / "venv")
    assert done.returncode != 0
    assert "older than Python 3.10" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_make_venv_names_what_is_missing(tmp_path):
    """An interpreter without Python.h that is not the distribution's: nothing is installed."""
    script = f"""
case "$*" in
    -) cat >/dev/null; echo "the header Python.h" ;;
    *base_prefix*) echo /opt/python ;;
    *) exec '{sys.executable}' "$@" ;;
esac"""
    lacking = fake(tmp_path, "python", script)
    done = run(ROOT / "tools/make_venv.sh", lacking, tmp_path / "venv")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert done.returncode != 0
    assert "has not got the header Python.h" in done.stderr
    assert f"python{version}-dev" in done.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(("system", "installs"), [("yes", True), ("no", False)])
def test_nothing_is_installed_into_the_system_unsaid(tmp_path, system, installs):
    folder = tmp_path / "bin"
    fake(folder, "id", "echo 0")
    fake(folder, "apt-get", f"echo called >>'{tmp_path}/calls'")
    without_data = fake(tmp_path, "python", "exit 1")
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "SYSTEM": system}
    done = run(ROOT / "tools/get_data.sh", without_data, env=environment)
    assert done.returncode == 0
    assert (tmp_path / "calls").exists() == installs
    assert ("dataset-fashion-mnist into the system with apt-get" in done.stdout) == installs


@pytest.mark.skipif(
    importlib.util.find_spec("ensurepip") is None, reason="this Python has no ensurepip"
)
def test_make_venv_keeps_what_is_whole_and_remakes_the_rest(tmp_path):
    environment = tmp_path / "venv"
    kept = environment / "kept"
    script = ROOT / "tools/make_venv.sh"
    # Leaves out pip, which takes seconds.
    quick = fake(
        tmp_path,
        "python",
        f"""case "$*" in
    "-m venv "*) exec '{sys.executable}' -m venv --without-pip "$3" ;;
    *) exec '{sys.executable}' "$@" ;;
esac""",
    )

    assert run(script, quick, environment).returncode == 0
    kept.touch()
    assert run(script, quick, environment).returncode == 0
    assert kept.exists(), "a whole environment was not kept"

    (environment / "bin/python").unlink()
    fake(environment / "bin", "python", "echo 3.9.0 /opt/python")
    assert run(script, quick, environment).returncode == 0
    assert not kept.exists(), "an environment of another interpreter was kept"

    kept.touch()
    (environment / ".made").unlink()
    assert run(script, sys.executable, environment).returncode == 0
    assert not kept.exists(), "an environment interrupted before it had pip was kept"
    assert run(environment / "bin/python", "-m", "pip", "--version").returncode == 0

    (environment / ".made").unlink()
    kept.touch()
    assert run(script, sys.executable, environment).returncode == 0
    assert kept.exists(), "an environment made by hand was not taken over"
    assert (environment / ".made").exists()


@pytest.mark.parametrize(
    ("failing", "status"), [("none", 0), ("lint", 2), ("test", 2), ("docs", 2)]
)
def test_ci_runs_all_and_tells_the_truth(tmp_path, failing, status):
    folder = tmp_path / "bin"
    fake(folder, "make", f'echo "ran $1"; test "$1" != {failing} || exit 2')
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    done = run("bash", ROOT / ".ci/run", cwd=tmp_path, env={**os.environ, "PATH": path})
    assert done.stdout.splitlines() == ["ran lint", "ran test", "ran docs"]
    assert done.returncode == status


def test_actions_are_pinned_to_commits():
    for workflow in (ROOT / ".github" / "workflows").glob("*.yml"):
        used = re.findall(r"uses: *(\S+)", workflow.read_text(encoding="utf-8"))
        assert used
        assert not [action for action in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action)]


def test_a_release_needs_every_other_job():
    yaml = pytest.importorskip("yaml")
    path = ROOT / ".github" / "workflows" / "checks.yml"
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    assert set(jobs["release"]["needs"]) == set(jobs) - {"release"}
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    named = set(re.findall(r"make ([\w-]+)", "\n".join(commands)))
    assert named
    assert named <= TARGETS


def test_oldest_packages_are_the_bounds_of_the_project():
    printed = run(sys.executable, "tools/oldest.py", cwd=ROOT).stdout.split("\n")
    (numpy,) = PROJECT["project"]["dependencies"]
    (learn,) = PROJECT["project"]["optional-dependencies"]["sklearn"]
    assert numpy.replace(">=", "==") + ".*" in printed
    assert any(line.startswith(learn.replace(">=", "==") + ".*") for line in printed)
    assert not any(line.startswith("torch") for line in printed)
    torch = PROJECT["project"]["optional-dependencies"]["torch"][0]
    with_torch = run(sys.executable, "tools/oldest.py", "torch", cwd=ROOT).stdout
    assert torch.replace(">=", "==") + ".*" in with_torch
