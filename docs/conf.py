"""Sphinx settings of the docs site; ``make docs`` builds it, and a warning is an error."""

from __future__ import annotations

import sys
from pathlib import Path

import decaylab

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "decaylab"
author = "the decaylab authors"
copyright = "the decaylab authors, MIT licence"
version = release = decaylab.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "generated_pages",
]
html_theme = "furo"
html_title = f"decaylab {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
exclude_patterns = ["_build", "_ext", "conf.py", "tree.py"]

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_url_schemes = ("http", "https", "mailto")
suppress_warnings = ["mystnb.unknown_mime_type"]

# Tutorials are Python files in the percent format of jupytext, run when they or the package changed.
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "cache"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_mock_imports: list[str] = []
autosummary_generate = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "literal"
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
