"""Fill the table: one set after the other, each model on it, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from lamella.data.source import Frames
from lamella.errors import DataError, InputError
from lamella.train.prepare import open_data
from lamella.types import Frame
from lamella.use.table.answer import Answer, Question, Respondent, UnansweredError
from lamella.use.table.compare import Compared, Labels, compare, each, elements_of, refit_on, survey
from lamella.use.table.config import SetConfig
from lamella.use.table.result import Cell, Row, Table

__all__ = ["OnSet", "evaluate_sets"]

OnSet = Callable[[str, int], AbstractContextManager[Callable[[int, str], None]]]
"""Told the name of a set and how many predictions are to come; gives a function that is told (so many more, who)."""


def evaluate_sets(sets: Mapping[str, SetConfig], models: Sequence[Respondent], on_set: OnSet | None = None) -> Table:
    """Every model on every set.

    One set is open at a time, and of it one batch is predicted at a time. A model that cannot be evaluated on a set has its
    reason in the table; sets are never left out.

    Args:
        sets: by name.
        models: columns.
        on_set: to show progress.

    Raises:
        DataError: frames that cannot be read, or that carry no label.
        InputError: no model, or two of one name.
    """
    names = [model.name for model in models]
    if not names or len(set(names)) < len(names):
        raise InputError(
            f"models: {', '.join(names) or 'none'} given; name at least one, and each differently (NAME=MODEL)."
        )
    show = on_set or (lambda name, total: nullcontext(lambda steps, says: None))
    rows = []
    for name, config in sets.items():
        try:
            rows.append(_row(name, config, models, show))
        except DataError as error:
            raise DataError(f"sets.{name}: {error}") from None
    return Table({model.name: model.origin for model in models}, rows)


def _row(name: str, config: SetConfig, models: Sequence[Respondent], show: OnSet) -> Row:
    frames = open_data(config.data, config.keys)
    fit = open_data(config.fit, config.keys) if config.fit is not None and config.baseline == "refit" else None
    labels = survey(frames, fit)
    cells = {}
    with show(name, len(models) * (len(frames) + (len(fit) if fit is not None else 0))) as advance:
        for model in models:
            work = _Work(Question(name, config, labels.numbers), model, labels, advance)
            cells[model.name] = work.cell(frames, fit)
    return Row(name, config, labels, cells)


class _Work:
    """One model on one set."""

    def __init__(self, question: Question, model: Respondent, labels: Labels, advance: Callable[[int, str], None]) -> None:
        self.question, self.model, self.labels, self.advance = question, model, labels, advance
        self.seen = 0

    def cell(self, frames: Frames, fit: Frames | None) -> Cell:
        """Errors, or why there are none."""
        task: str | None = None
        try:
            task = self.model.task(self.question)
            return Cell(task, self._compared(frames, fit))
        except UnansweredError as reason:
            self.advance(len(frames) + (len(fit) if fit is not None else 0) - self.seen, self.model.name)
            return Cell(task, None, str(reason))

    def _compared(self, frames: Frames, fit: Frames | None) -> Compared:
        refits = self.question.config.baseline == "refit"
        if fit is None:
            return compare(self.labels, self._answers(self.question, each(frames)), refits)
        wider = self.question._replace(numbers=_numbers_of(fit))
        self.model.task(wider)
        given = refit_on(self.labels, self._answers(wider, each(fit)), elements_of(each(fit)))
        return compare(self.labels, self._answers(self.question, each(frames)), refits, given)

    def _answers(self, question: Question, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Answer]]:
        for pair in self.model.answers(question, frames):
            self.seen += 1
            self.advance(1, self.model.name)
            yield pair


def _numbers_of(frames: Frames) -> tuple[int, ...]:
    return tuple(sorted({int(number) for frame in each(frames) for number in frame.numbers}))
