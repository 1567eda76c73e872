"""Tutorials' pictures: what a step of a tutorial leaves as the variable ``figure``.

The figure's label is its alternative text: ``figure.set_label("...")``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

_RST = """
.. image:: /{path}
   :alt: {alt}

"""


def scrape(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Saves the figure, if the step made one, and returns what shows it."""
    figure = block_vars["example_globals"].pop("figure", None)
    if not isinstance(figure, Figure):
        return ""
    alt = str(figure.get_label())
    if not alt:
        raise ValueError(f"{block_vars['src_file']}: figure.set_label() gives its alternative text")
    path = Path(next(block_vars["image_path_iterator"]))
    figure.savefig(path, dpi=130)
    return _RST.format(path=path.relative_to(gallery_conf["src_dir"]).as_posix(), alt=alt)


def _get_sg_image_scraper() -> Any:
    """What sphinx-gallery asks of a module that is named as a scraper."""
    return scrape
