"""Links of the documents lead somewhere, every page is in the navigation, and the code in the README runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from house.tree import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md")) + [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(text: str) -> set[str]:
    """Anchors of the headings, as mkdocs makes them."""
    titles = re.findall(r"^#+ (.*)$", without_code_blocks(text), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}


def without_code_blocks(text: str) -> str:
    return re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)


def broken_links(page: Path) -> list[str]:
    """Relative links of a page that lead to no file or no heading."""
    broken = []
    for groups in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        target = groups[0] or groups[1]
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name) if name else page
        wanted = {anchor} - {""} if file.suffix == ".md" else set()
        if not file.exists() or wanted - anchors(file.read_text(encoding="utf-8") if wanted else ""):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert not broken_links(page)


def test_broken_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One title\n[a](missing.md) [b](#one-title) [c](#two) `[d](code.md)` [e](https://doi.org/10.1)\n")
    assert broken_links(page) == ["missing.md", "#two"]


def navigation(node: object) -> list[str]:
    if isinstance(node, str):
        return [node]
    if isinstance(node, dict):
        return [name for value in node.values() for name in navigation(value)]
    assert isinstance(node, list)
    return [name for value in node for name in navigation(value)]


def test_every_page_is_in_the_navigation():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    listed = navigation(config["nav"])
    assert len(listed) == len(set(listed))
    assert set(listed) == {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}


def test_decision_records_say_what_was_decided():
    records = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    assert records
    for record in records:
        text = record.read_text()
        assert re.match(r"# \d{4} ", text), record.name
        for heading in ("## Context", "## Decision", "## Consequences"):
            assert heading in text, f"{record.name} lacks {heading}"
