"""The page of an atlas in a real browser, from the file system and without a network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lamella.data.convert import frame_from_atoms
from lamella.data.source import FrameList
from lamella.use.atlas.atlas import Atlas, build_atlas
from lamella.use.atlas.config import AtlasConfig
from lamella.use.atlas.write import write_atlas
from use.small import dimer, small_model, water_box

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

POINTS = """() => {
  const plot = document.querySelector('#atlas-map > div').shadowRoot.querySelector('.js-plotly-plot');
  const trace = plot.data.reduce((a, b) => (a.x.length > b.x.length ? a : b));
  const box = plot.getBoundingClientRect(), { xaxis, yaxis } = plot._fullLayout;
  return Array.from(trace.x, (x, i) => ({
    x, y: trace.y[i],
    left: box.left + xaxis._offset + xaxis.d2p(x), top: box.top + yaxis._offset + yaxis.d2p(trace.y[i]),
  }));
}"""
"""Every point of the map: where it lies on its axes, and on the screen."""


@dataclass
class Visit:
    """An open page, and what the browser said of it."""

    page: Any
    atlas: Atlas
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def browser_path() -> str:
    found = os.environ.get("LAMELLA_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is installed, and LAMELLA_BROWSER names none")
    return found


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives the browser")
    executable = browser_path()
    structures = [water_box(2, seed) for seed in range(3)] + [dimer()] * 4
    data = {
        name: FrameList(frame_from_atoms(atoms, source=f"{name}#{i}") for i, atoms in enumerate(part))
        for name, part in (("boxes", structures[:3]), ("pairs", structures[3:]))
    }
    # the nearest oxygen of a lone molecule's oxygen is nowhere: a page with missing numbers
    config = AtlasConfig(atoms=60, perplexity=8, neighbors=5, colors=("element", "task", "distance"), distance_from=("O",))
    atlas = build_atlas({"small <model>": small_model()}, data, config)
    page_file = write_atlas(atlas, tmp_path_factory.mktemp("page"))[2]
    with playwright.sync_playwright() as driver:
        flags = ["--no-sandbox", "--enable-unsafe-swiftshader", "--use-angle=swiftshader"]
        browser = driver.chromium.launch(executable_path=executable, args=flags)
        page = browser.new_context(viewport={"width": 1300, "height": 900}, offline=True).new_page()
        page.set_default_timeout(120_000)  # pictures are drawn without a GPU, on a machine that may have other work
        made = Visit(page, atlas)
        page.on("pageerror", lambda error: made.errors.append(str(error)))
        page.on("console", lambda said: made.errors.append(said.text) if said.type == "error" else None)
        page.on("request", lambda request: made.requests.append(request.url))
        page.goto(Path(page_file).as_uri())
        page.wait_for_function("lamella.ready || lamella.error", timeout=120_000)
        page.wait_for_timeout(500)
        yield made
        browser.close()


def chosen(visit: Visit) -> str:
    return str(visit.page.text_content("#chosen"))


def named(visit: Visit, index: int) -> str:
    sample = visit.atlas.sample
    return f"{sample.symbols[index]}, atom {sample.atom[index]} of {sample.frames[sample.frame[index]].source}"


def test_page_loads_without_errors_and_without_a_network(visit):
    assert visit.page.evaluate("lamella.error") is None
    assert visit.errors == []
    assert [url for url in visit.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert visit.page.title() == "What small <model> learned"


def test_every_atom_is_a_point_where_its_map_says(visit):
    points = visit.page.evaluate(POINTS)
    drawn = np.array([[point["x"], point["y"]] for point in points])
    assert np.allclose(drawn, visit.atlas.sheets[0].maps["tsne"].points, atol=1e-4)


def test_a_click_on_a_point_shows_its_structure(visit):
    points = visit.page.evaluate(POINTS)
    places = np.array([[point["left"], point["top"]] for point in points])
    apart = np.linalg.norm(places[:, None] - places[None, :], axis=2) + np.diag([np.inf] * len(places))
    current = visit.page.evaluate("lamella.selected")
    frame = visit.atlas.sample.frame
    alone = [index for index in np.argsort(-apart.min(axis=1)) if frame[index] != frame[current]]
    before, seen = visit.page.locator("#atlas-structure").screenshot(), chosen(visit)
    visit.page.mouse.click(*places[alone[0]])
    visit.page.wait_for_function(f"lamella.selected === {int(alone[0])}")
    visit.page.wait_for_timeout(500)
    assert chosen(visit) == named(visit, alone[0]) != seen
    assert visit.page.locator("#atlas-structure").screenshot() != before
    shown = visit.page.evaluate("lamella.viewer.structure.pinned()[0]")
    assert (shown["structure"], shown["atom"]) == (frame[alone[0]], visit.atlas.sample.atom[alone[0]])
    assert visit.errors == []


def test_maps_and_colours_are_changed(visit):
    page = visit.page
    page.select_option("#map-choice", label="PCA")
    page.select_option("#color-choice", label="element")
    page.wait_for_timeout(500)
    drawn = np.array([[point["x"], point["y"]] for point in page.evaluate(POINTS)])
    assert np.allclose(drawn, visit.atlas.sheets[0].maps["pca"].points, atol=1e-4)
    assert sorted(page.locator("#legend span").all_text_contents()) == ["H", "O"]
    page.select_option("#color-choice", label="distance")
    page.wait_for_timeout(500)
    assert page.locator("#legend span").count() == 0
    options = page.locator("#color-choice option").all_text_contents()
    assert options[:3] == ["element", "task", "distance"]
    assert {"group", "period", "coordination", "atomic number"} <= set(options)
    assert visit.errors == []
