"""The page of the catalogue says what the table says."""

from __future__ import annotations

import runpy

from house.tree import ROOT


def test_catalogue_page_is_written_from_the_table():
    script = runpy.run_path(str(ROOT / "scripts" / "catalogue_page.py"))
    assert script["PAGE"].read_text(encoding="utf-8") == script["page"](), "run python scripts/catalogue_page.py"
