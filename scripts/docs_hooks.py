"""What mkdocs calls while it builds: docstrings name things in Sphinx's way (:func:`f`), pages show the name alone."""

import re

ROLE = re.compile(r":(?:func|class|meth|attr|data|mod|exc):(?=<(?:code|a|autoref))")


def on_page_content(html, page, config, files):
    return ROLE.sub("", html)
