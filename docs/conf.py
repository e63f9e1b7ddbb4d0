"""Settings of the documentation: ``sphinx-build -W docs docs/_build/html``.

Two folders are written anew by every build, from sources that stand elsewhere: `generated/` has the
theory page (the docstring of `hamshoot.theory.hamiltonian`), `gallery_sources/` the demos as
sphinx-gallery reads them, with their committed figures. No demo is run.
"""

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from sources import write_gallery, write_theory

HERE = Path(__file__).parent
write_theory(HERE / "generated")
write_gallery(HERE.parent / "demos", HERE / "gallery_sources")

project = "hamshoot"
release = version = metadata.version("hamshoot")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_click",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery_sources"]
# Code in backticks is code; docstrings name their symbols so.
default_role = "code"
# Parameters are links to nothing: types are said in words ("ndarray, shape (L,)").
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
doctest_global_setup = "import hamshoot as hs; import numpy as np"
doctest_test_doctest_blocks = ""

sphinx_gallery_conf = {
    "examples_dirs": ["gallery_sources"],
    "gallery_dirs": ["gallery"],
    "filename_pattern": r"(?!)",  # runs none
    "ignore_pattern": r"(?!)",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1e9,
    "plot_gallery": False,
}

html_theme = "furo"
html_title = f"hamshoot {release}"
html_show_copyright = False
html_show_sphinx = False


def _escape_bars(app, what, name, obj, options, lines):
    """Docstrings say |x| for a size; to reStructuredText that is a substitution."""
    lines[:] = [line.replace("|", "\\|") for line in lines]


def setup(app):
    """Connect what changes docstrings on their way."""
    app.connect("autodoc-process-docstring", _escape_bars, priority=400)
