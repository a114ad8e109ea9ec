"""``report.html`` of a run folder: read the run, judge its model, lay out the page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lamella.errors import CheckpointError, LamellaError
from lamella.formats.load import load
from lamella.models.potential import Potential
from lamella.use.report import accuracy, sections
from lamella.use.report.accuracy import Judgement
from lamella.use.report.facts import facts, headline
from lamella.use.report.judge import Progress, judge
from lamella.use.report.page import Html, join, page, text, tiles
from lamella.use.report.run import Run, histories, read_run

__all__ = ["REPORT", "write_report"]

REPORT = "report.html"


def write_report(
    folder: str | Path, data: Sequence[str] = (), task: str | None = None, on_progress: Progress | None = None
) -> Path:
    """Write one self-contained page on a run: what was trained on what, how good it is, and how it came about.

    The page depends on the run folder and the data alone: written twice, it has the same bytes.

    Args:
        folder: a run folder; whatever it lacks is said in the page.
        data: labelled structures to judge the best step's model on (files, folders, ``embedded:NAME:test``); the run's
            test data that its ``eval.json`` names where not given, else its validation data.
        task: which task labels ``data``; may be left out where the model has one.
        on_progress: called with (frames done, frames in all) while the model is judged.

    Returns:
        The page, ``folder/report.html``; an older one is replaced.

    Raises:
        CheckpointError: not a run folder, or the page cannot be written.
        DataError: ``data`` cannot be read.
    """
    run = read_run(Path(folder))
    model, remarks = _model(run)
    judgements: list[Judgement] = []
    if model is not None:
        judgements, more = judge(run, model, data, task, on_progress)
        remarks = [*remarks, *more]
    content = page(f"lamella report: {run.folder.resolve().name}", _body(run, model, judgements, remarks))
    path = run.folder / REPORT
    building = run.folder / f".{REPORT}-{os.getpid()}"
    try:
        building.write_text(content, encoding="utf-8")
        building.replace(path)
    except OSError as error:
        building.unlink(missing_ok=True)
        raise CheckpointError(f"{path}: cannot be written ({error.strerror}); free space or check permissions.") from None
    return path


def _model(run: Run) -> tuple[Potential | None, list[str]]:
    """The best step's model; a sentence where there is none."""
    try:
        return load(run.folder), []
    except LamellaError as error:
        return None, [f"There is no model to judge: {error}"]


def _body(run: Run, model: Potential | None, judgements: Sequence[Judgement], remarks: Sequence[str]) -> list[Html]:
    curves = histories(run.log)
    spreads = {
        j.evaluation.task: j.evaluation.errors["forces"].label_std for j in judgements if "forces" in j.evaluation.errors
    }
    made = [sections.learning(curves, spreads), accuracy.accuracy(judgements, remarks), accuracy.by_element(judgements)]
    made += [accuracy.worst_frames(judgements), sections.dynamics(run.dynamics), sections.laws(run.laws)]
    made.append(sections.manifest(run, facts(run, model)))
    return [_header(run, model, judgements), *made, _footer()]


def _header(run: Run, model: Potential | None, judgements: Sequence[Judgement]) -> Html:
    title, lead = headline(run, model)
    shown = accuracy.accuracy_tiles(judgements[0]) if len(judgements) == 1 else []
    shown += [sections.dynamics_tile(run.dynamics)] if run.dynamics else []
    shown += [sections.laws_tile(run.laws)] if run.laws else []
    links = "\n".join(f'<a href="#{key}">{name}</a>' for key, name in _PLACES)
    parts = [
        Html("<header>"),
        Html(f"<h1>{text(title)}</h1>"),
        lead,
        *[accuracy.in_words(judgement) for judgement in judgements],
        *([tiles(shown)] if shown else []),
        accuracy.glossary(),
        Html(f"<nav>{links}</nav>"),
        Html("</header>"),
    ]
    return join(parts)


_PLACES = (
    ("learning", "Learning curves"),
    ("accuracy", "Accuracy"),
    ("elements", "Elements and tasks"),
    ("worst", "Worst structures"),
    ("dynamics", "Molecular dynamics"),
    ("laws", "Laws of physics"),
    ("manifest", "Manifest"),
)


def _footer() -> Html:
    return Html(
        "<footer>Written by <code>lamella report</code>. This page is one file: keep it, send it, print it.</footer>"
    )
