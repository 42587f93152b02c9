"""Sphinx configuration; the pages under `generated/` are written from the code before each build."""

import doctest
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from pages import write_pages

from tersor._version import __version__

project = "tersor"
author = "The tersor authors"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.doctest"]
html_math_renderer = "mathml"
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"tersor {__version__}"
html_show_sourcelink = False
exclude_patterns = ["_build"]
suppress_warnings = ["myst.xref_missing"]  # guarantee.md also links to files of the repository
doctest_global_setup = """
import warnings
import torch
warnings.filterwarnings("ignore")
torch.manual_seed(0)
torch.set_num_threads(1)
"""
doctest_test_doctest_blocks = ""
doctest_default_flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def mathml(display):
    """Return how a formula becomes MathML, which browsers show without scripts or network."""

    def visit(self, node):
        self.body.append(convert(node.astext(), display=display))
        raise SkipNode

    return visit, None


def setup(app):
    """Write the generated pages before Sphinx looks for its sources."""
    app.add_html_math_renderer("mathml", mathml("inline"), mathml("block"))
    write_pages(Path(__file__).parent / "generated")
