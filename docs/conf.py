"""Sphinx configuration."""

project = "lfjax"
author = "The lfjax developers"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
html_theme = "furo"
html_title = "lfjax"
exclude_patterns = ["_build"]
nb_execution_mode = "off"  # `make notebooks` has run them; their outputs are shown as they came
myst_enable_extensions = ["dollarmath", "amsmath"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_use_ivar = True
suppress_warnings = ["ref.python", "mystnb.unknown_mime_type"]
