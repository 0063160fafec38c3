"""Sphinx configuration."""

project = "lfjax"
author = "The lfjax developers"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
html_theme = "furo"
html_title = "lfjax"
exclude_patterns = ["_build"]
default_role = "literal"  # `name` in a docstring is code
nb_execution_mode = "off"  # `make notebooks` has run them; their outputs are shown as they came
myst_enable_extensions = ["dollarmath", "amsmath"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_use_ivar = True
suppress_warnings = ["ref.python", "mystnb.unknown_mime_type"]


def plain_maths(app, what, name, obj, options, lines):
    """Docstrings write |x| and x * y as plain text; keep reStructuredText from reading markup into them.

    Doctests are shown as they are.
    """
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            lines[i] = line.replace("|", "\\|").replace("*", "\\*")


def setup(app):
    app.connect("autodoc-process-docstring", plain_maths, priority=400)  # before napoleon, at 500
