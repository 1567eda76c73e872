"""The directive ``{drawn}``: a picture that a script of ``docs/figures`` draws, light and dark.

All of them are drawn when a build begins, into ``docs/_figures``, so that none is out of date.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

SCRIPTS = ("theory", "modules", "study")
FOLDER = "_figures"
THEMES = ("light", "dark")

log = logging.getLogger(__name__)


class Drawn(SphinxDirective):
    """One picture, by the name that its script gave it; the content is its caption."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {"alt": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """A figure with both versions, of which the theme shows one."""
        if not self.options.get("alt"):
            raise self.error("a drawn picture needs an :alt: text")
        figure = nodes.figure("", align="default")
        for theme in THEMES:
            uri = f"/{FOLDER}/{self.arguments[0]}-{theme}.svg"
            image = nodes.image(uri=uri, alt=self.options["alt"], classes=[f"only-{theme}"])
            self.set_source_info(image)
            figure += image
        if self.content:
            caption = nodes.caption()
            text, messages = self.parse_inline(" ".join(self.content))
            caption += text
            figure += [caption, *messages]
        return [figure]


def draw(app: Sphinx) -> None:
    """Runs the scripts."""
    scripts = Path(app.srcdir) / "figures"
    sys.path.insert(0, str(scripts))
    for script in SCRIPTS:
        log.info("drawing the pictures of %s", script)
        for theme in THEMES:
            importlib.import_module(script).main(Path(app.srcdir) / FOLDER, theme)


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the directive."""
    app.add_directive("drawn", Drawn)
    app.connect("builder-inited", draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
