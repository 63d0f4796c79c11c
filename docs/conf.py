"""How Sphinx makes the documentation of these pages; ``make docs`` calls it."""

from __future__ import annotations

import posixpath
import re
from importlib.metadata import version as installed_version
from importlib.resources import files
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]

project = "softmax_ext"
author = "The softmax_ext authors"
project_copyright = author
version = release = installed_version("softmax-ext")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
nitpicky = False  # types in docstrings are words for people
default_role = "py:obj"  # numpydoc's: `name` in a docstring is a link, where the name is documented

# The notebooks and the pages' own cells run while the pages are made; a failing one is an error.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_in_temp = True  # what they write is not kept
nb_execution_timeout = 300
nb_execution_show_tb = True
nb_merge_streams = True
nb_render_markdown_format = "myst"

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's sections tell them in words
napoleon_google_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = "softmax_ext"
# ziamath is there for its font: STIX Two Math has what browsers need to set formulas well.
html_static_path = ["_static", str(files("ziamath") / "fonts")]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
copybutton_exclude = ".linenos, .gp, .go"
suppress_warnings = ["mystnb.unknown_mime_type"]


#: Pages that lie elsewhere in the checkout. The files of these names here say only that.
ELSEWHERE = {
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "leaves": "src/README.md",
}


def _read_elsewhere(app: Sphinx, docname: str, source: list[str]) -> None:
    # With its ending the link would be followed out of this folder, to where the notebook lies.
    source[0] = re.sub(r"\]\((notebooks/[\w-]+)\.ipynb\)", r"](\1)", source[0])
    if docname not in ELSEWHERE:
        return
    path = ELSEWHERE[docname]
    app.env.note_dependency(str(ROOT / path))
    pages = {where: f"{name}.md" for name, where in ELSEWHERE.items()}

    def relinked(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), match[1]))
        return f"]({pages.get(target) or posixpath.relpath(target, 'docs')})"

    text = (ROOT / path).read_text(encoding="utf-8")
    source[0] = re.sub(r"\]\(([^):#]+)\)", relinked, text)


def _plain_references(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Docstrings number their references from 1, each for itself; as footnotes they would meet."""
    for i, line in enumerate(lines):
        line = re.sub(r"\[(\d+)\]_", r"[\1]", line)
        lines[i] = re.sub(r"^(\s*)\.\. \[(\d+)\]", r"\1\2.", line)


def _mathml(tex: str, as_block: bool) -> str:
    """A formula as MathML, with what browsers would leave out or mistake.

    That is the thin spaces around log and its like, and which side of something a bar stands on.
    """
    mathml = tex2mathml(tex, as_block)
    name = r"(<mi>\w{2,}</mi>\s*)<mo>&ApplyFunction;</mo>"
    space = '<mspace width="0.17em"/>'
    before = r"((?:</m(?:i|n|frac|sub|sup)>|\)</mo>)\s*)"
    mathml = re.sub(rf"{before}{name}", rf"\1{space}\2<mo>&ApplyFunction;</mo>", mathml)
    mathml = re.sub('<mo class="mathopen">(?=[|‖])', '<mo form="prefix" stretchy="false">', mathml)
    mathml = re.sub("<mo>(?=[|‖])", '<mo form="postfix" stretchy="false">', mathml)
    return re.sub(rf"{name}(?!\s*<mo[^>]*>\()", rf"\1{space}", mathml)


def _inline_math(self: Any, node: nodes.math) -> None:
    self.body.append(_mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def _display_math(self: Any, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math">{_mathml(node.astext(), as_block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.connect("source-read", _read_elsewhere)
    app.connect("autodoc-process-docstring", _plain_references)
    # MathML, which every browser of today shows by itself: no script, and nothing to fetch.
    app.add_html_math_renderer("mathml", (_inline_math, None), (_display_math, None))
