"""The site: ``sphinx-build -W --keep-going docs docs/_build/html``, offline."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
# The package of this very tree, whatever is installed; and our own extensions.
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

from captum_pullback import __version__  # noqa: E402

os.environ.setdefault("TQDM_DISABLE", "1")
torch.set_num_threads(1)  # tutorials' networks are small: a second thread costs more than it gives

project = "captum_pullback"
author = "The captum_pullback developers"
copyright = "The captum_pullback developers"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "drawn",
    "mathml",
]
exclude_patterns = [
    "_build",
    "tutorials",
    "**/GALLERY_HEADER.rst",
    "_tutorials/sg_execution_times*",
]
nitpicky = True
default_role = "any"
smartquotes = False
suppress_warnings = ["config.cache"]

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 88
# Names in signatures that have no page of their own: aliases, and other libraries' private names.
nitpick_ignore_regex = [
    ("py:class", r"(numpy|PIL|matplotlib\.axes)\..*"),
    ("py:class", r"torch\.nn\.modules\.module\.Module"),
    (
        "py:class",
        r"(captum_pullback\.[a-z_.]+\.)?(Array|Channels|Floats|Singles|Inputs|Method|Sign|Call|Gradients|Done|Tensor)",
    ),
]
autodoc_preserve_defaults = True
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = False

# Small inventories of the names that these pages use, so that a build asks no host and is the same
# everywhere. CAPTUM_PULLBACK_DOCS_ONLINE=1 asks the projects' own, which checks the small ones.
_online = "CAPTUM_PULLBACK_DOCS_ONLINE" in os.environ
intersphinx_mapping = {
    name: (address, None if _online else str(HERE / "inventories" / f"{name}.inv"))
    for name, address in {
        "python": "https://docs.python.org/3/",
        "torch": "https://docs.pytorch.org/docs/stable/",
        "captum": "https://captum.ai/api/",
        "matplotlib": "https://matplotlib.org/stable/",
    }.items()
}

sphinx_gallery_conf = {
    "examples_dirs": "tutorials",
    "gallery_dirs": "_tutorials",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("scraped",),
    "reset_modules": (),
    "abort_on_example_error": True,
    "show_signature": False,
    "min_reported_time": 0,
    "write_computation_times": False,
    "remove_config_comments": True,
}

html_theme = "furo"
html_title = f"captum_pullback {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
copybutton_exclude = ".linenos, .gp, .go"  # a session's prompts and output are not to be copied
html_copy_source = False
html_show_sphinx = False
html_domain_indices = False
pygments_style = "tango"
pygments_dark_style = "monokai"
html_theme_options = {"navigation_with_keys": True}
