"""Settings of the docs site: ``sphinx-build -W -b html docs outputs/docs``."""

from importlib.metadata import version as installed_version

project = "lightning-transfer"
author = "the lightning-transfer maintainers"
copyright = "the lightning-transfer maintainers"  # noqa: A001
version = release = installed_version("lightning-transfer")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

autosummary_generate = True
autosummary_imported_members = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = "lightning-transfer"
templates_path = ["_templates"]
