"""How Sphinx builds these pages: ``tox -e docs``."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any, ClassVar

from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective
from zope.interface.interface import InterfaceClass, Method

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

project = "walsender"
author = "the walsender developers"
copyright = author  # noqa: A001 (Sphinx' name for it)

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 4
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
# Sphinx' colours for lines of a configuration file or a log would be guesses.
highlight_language = "none"

html_theme = "furo"
html_title = "walsender"
html_show_sphinx = False
html_copy_source = False


class AutoInterface(SphinxDirective):
    """Documents an interface of zope.interface, which is no class to autodoc."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {"no-index": directives.flag}

    def run(self) -> list[nodes.Node]:
        """Return what the interface says of itself, its attributes and its methods."""
        module, _, name = self.arguments[0].rpartition(".")
        interface: InterfaceClass = getattr(importlib.import_module(module), name)
        lines = [f".. py:class:: {self.arguments[0]}", ""]
        lines += _indented(interface.__doc__ or "", 1)
        for member, description in interface.namesAndDescriptions():
            if isinstance(description, Method):
                lines += [f"   .. py:method:: {member}{description.getSignatureString()}", ""]
            else:
                lines += [f"   .. py:attribute:: {member}", ""]
            lines += _indented(description.__doc__ or "", 2)
        return self.parse_text_to_nodes(StringList(lines, source=self.arguments[0]))


def _indented(text: str, levels: int) -> list[str]:
    return [f"{'   ' * levels}{line}".rstrip() for line in [*inspect.cleandoc(text).splitlines(), ""]]


def setup(app: Sphinx) -> None:
    """See Sphinx."""
    app.add_directive("autointerface", AutoInterface)
