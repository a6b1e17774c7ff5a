"""Settings of Sphinx for the documentation; `docs/build` calls it."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]  # the package and configs/ of this checkout, and the generators

import tables  # noqa: E402

tables.write(DOCS / "_generated")

project = "score_sde_jax"
author = "the authors of score_sde_jax"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    "sphinxcontrib.mermaid",
]
exclude_patterns = ["_build", "_static", "_generated"]
highlight_language = "text"  # commands; Python is named where it is meant

# ------------------------------------------------------------------------- pages

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "attrs_block"]
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]  # as GitHub renders them
myst_dmath_allow_labels = False  # "$$ ... $$ (1)" is no label; equations carry a \tag

mermaid_height = "auto"

nb_execution_mode = "cache"
nb_execution_cache_path = str(DOCS / "_build" / "cache")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
suppress_warnings = ["myst-nb.lexer"]  # of notebooks that are not executed, in drafts

# ------------------------------------------------------------------------- the reference of the code

default_role = "code"  # docstrings put code between single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
maximum_signature_line_length = 100
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False

intersphinx_mapping: dict[str, tuple[str, str | None]] = {}


def _plain_text(app, what, name, obj, options, lines) -> None:
    """Escape what reStructuredText would read as markup in the plain text of a docstring: |x|, x*, x_."""
    for number, line in enumerate(lines):
        parts = line.split("`")
        parts[::2] = [part.replace("*", r"\*").replace("|", r"\|") for part in parts[::2]]
        lines[number] = "`".join(parts)


def _skip(app, what, name, obj, skip, options) -> bool | None:
    """Leave out the fields of named tuples: `Attributes:` describes them."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def _public_names(app, what, name, obj, options, signature, returns) -> tuple[str | None, str | None]:
    """Name JAX's array as its users do."""
    parts = (part and part.replace("jaxlib._jax.Array", "Array") for part in (signature, returns))
    return tuple(parts)


def setup(app) -> None:
    """Connect the functions of this file."""
    app.connect("autodoc-process-docstring", _plain_text, priority=400)  # before napoleon, which writes markup
    app.connect("autodoc-process-signature", _public_names)
    app.connect("autodoc-skip-member", _skip)


# ------------------------------------------------------------------------- HTML

html_theme = "sphinx_book_theme"
html_title = "score_sde_jax"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_theme_options = {
    "show_toc_level": 1,
    "navbar_persistent": [],
    "use_download_button": False,
    "use_fullscreen_button": False,
}

# Browsers load MathJax and Mermaid from a CDN. Copies in docs/_static/local make the pages independent of a network.
LOCAL = DOCS / "_static" / "local"
if (LOCAL / "mathjax").is_dir():
    mathjax_path = "local/mathjax/es5/tex-mml-chtml.js"
if (LOCAL / "mermaid").is_dir():
    mermaid_use_local = "local/mermaid/dist/mermaid.esm.min.mjs"
