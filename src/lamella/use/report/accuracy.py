"""Sections on how good the model is: headline, parity, errors by element and task, worst frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lamella.use.evaluate import Errors, Evaluation, FrameError
from lamella.use.report import figures
from lamella.use.report.page import (
    Cell,
    Html,
    Table,
    details,
    figure,
    join,
    number,
    paragraph,
    percent,
    section,
    subsection,
    table,
    tile,
    words,
)
from lamella.use.report.page import figures as side_by_side

__all__ = ["Judgement", "accuracy", "accuracy_tiles", "by_element", "glossary", "in_words", "worst_frames"]

_WORST = 10


@dataclass(frozen=True)
class Judgement:
    """One task's evaluation and what it was done on.

    Attributes:
        evaluation: of :func:`lamella.use.evaluate.evaluate`.
        kind: ``"test"``, ``"validation"``, ``"training"`` or ``"given"`` (unknown): whether training has seen the data.
        data: where the frames are from, in words.
    """

    evaluation: Evaluation
    kind: str
    data: str


_SEEN = {
    "validation": "validation structures, which training did not fit (the best step was chosen by them)",
    "test": "test structures, which played no part in training",
    "given": "structures given for this page (some may have been trained on)",
    "training": "of the training structures (there is no validation data; expect larger errors on anything new)",
}


def in_words(judgement: Judgement) -> Html:
    """The accuracy as a chemist would say it."""
    result = judgement.evaluation
    task = f"Task {result.task}: on" if result.task != "default" else "On"
    parts = [f"{task} {result.frames:,} {_SEEN[judgement.kind]},"]
    forces, energy = result.errors.get("forces"), result.errors.get("energy")
    if forces is not None:
        parts.append(
            f"the predicted forces are off by {number(1000 * forces.rmse)} meV/Å (root mean square). The reference forces "
            f"themselves vary by {number(1000 * forces.label_std)} meV/Å (standard deviation), so the error is "
            f"{percent(forces.rmse, forces.label_std)} of that; a model that knew nothing would have 100 %."
        )
    if energy is not None:
        start = "The energy is" if forces is not None else "the energy is"
        parts.append(f"{start} off by {number(1000 * energy.rmse)} meV per atom.")
    return paragraph(" ".join(parts), "lead")


def accuracy_tiles(judgement: Judgement) -> list[Html]:
    """The errors as headline figures."""
    result, made = judgement.evaluation, []
    names = {
        "forces": ("Force error", "meV/Å"),
        "energy": ("Energy error", "meV/atom"),
        "virial": ("Virial error", "meV/atom"),
    }
    for key, (name, unit) in names.items():
        error = result.errors.get(key)
        if error is None:
            continue
        more = f"{percent(error.rmse, error.label_std)} of the reference's spread of {number(1000 * error.label_std)} {unit}"
        made.append(tile(f"{name} (RMSE)", number(1000 * error.rmse), unit, more))
    return made


def accuracy(judgements: Sequence[Judgement], remarks: Sequence[str]) -> Html:
    """Errors by task in a table, then parity plots."""
    parts = [paragraph(remark, "note") for remark in remarks]
    if not judgements:
        parts.append(paragraph("There is no labelled data at hand to judge the model on, so no errors can be shown."))
        return section("accuracy", "Accuracy", parts)
    parts += [paragraph(f"Judged on {judgement.data}.") for judgement in judgements]
    parts.append(_error_table([judgement.evaluation for judgement in judgements]))
    parts.append(
        paragraph(
            "RMSE is the root mean square error, MAE the mean absolute error, bias the mean of predicted minus reference. "
            "Spread is the "
            "standard deviation of the reference values: the RMSE of a model that always answers their mean. Energies are "
            "taken per "
            "atom, above the sum of the model's energies per element.",
            "note",
        )
    )
    drawn = _parities(judgements)
    parts += [subsection("Predicted against reference"), side_by_side(drawn)] if drawn else []
    return section("accuracy", "Accuracy", parts)


def _error_table(results: Sequence[Evaluation]) -> Html:
    names = {"forces": "force components, meV/Å", "energy": "energy, meV/atom", "virial": "virial, meV/atom"}
    rows: list[list[Cell]] = []
    for result in results:
        for key, name in names.items():
            error = result.errors.get(key)
            if error is not None:
                rows.append([result.task, name, error.count, *_milli(error), percent(error.rmse, error.label_std)])
    made = table(["task", "quantity, unit", "values compared", "RMSE", "MAE", "bias", "spread", "RMSE / spread"], rows)
    absent = [f"{name.split(',')[0]} (task {r.task})" for r in results for key, name in names.items() if key not in r.errors]
    return (
        join([made, paragraph(f"Not labelled in this data, so not judged: {'; '.join(absent)}.", "note")])
        if absent
        else made
    )


def _milli(error: Errors) -> list[float]:
    return [1000 * error.rmse, 1000 * error.mae, 1000 * error.mean_error, 1000 * error.label_std]


_PARITY = {
    "forces": (
        "force component",
        "eV/Å",
        "meV/Å",
        "Every dot is one Cartesian component of the force on one atom. All is well when the dots lie on the diagonal, and "
        "the "
        "differences below form a band around zero that is far narrower than the axis above.",
    ),
    "energy": (
        "energy",
        "eV/atom",
        "meV/atom",
        "Every dot is one structure; the energy is per atom, above the sum of energies per element, so that what is left "
        "is bonding. "
        "Dots off the diagonal by the same amount everywhere would mean a wrong energy reference.",
    ),
    "virial": (
        "virial component",
        "eV/atom",
        "meV/atom",
        "Every dot is one component of the virial per atom: how the energy answers to stretching the box, i.e. minus "
        "volume times stress. "
        "Its error matters for simulations at constant pressure.",
    ),
}


def _parities(judgements: Sequence[Judgement]) -> list[Html]:
    drawn = []
    for key, (quantity, unit, fine, caption) in _PARITY.items():
        groups = [
            (j.evaluation.task, j.evaluation.parity[key][:, 0], j.evaluation.parity[key][:, 1])
            for j in judgements
            if key in j.evaluation.errors
        ]
        if not groups:
            continue
        shown, total = (
            sum(len(x) for _, x, _ in groups),
            sum(j.evaluation.errors[key].count for j in judgements if key in j.evaluation.errors),
        )
        sample = f" A random {shown:,} of {total:,} values are drawn." if shown < total else ""
        drawn.append(figure(figures.parity(f"parity-{key}", groups, quantity, unit, fine), caption + sample))
    return drawn


def by_element(judgements: Sequence[Judgement]) -> Html:
    """Force errors by element, and by task where there are several."""
    known = [j.evaluation for j in judgements if j.evaluation.by_element]
    if not known:
        return section(
            "elements", "Errors by element and task", [paragraph("No forces are labelled, so there is nothing to resolve.")]
        )
    parts: list[Html] = []
    drawn = [_element_figure(index, result, len(known)) for index, result in enumerate(known)]
    if len(known) > 1:
        svg = figures.bars(
            "tasks", [r.task for r in known], [1000 * r.errors["forces"].rmse for r in known], "force RMSE, meV/Å"
        )
        drawn.append(
            figure(
                svg,
                "Force error by task. Tasks with wider-ranging forces may have larger errors: compare RMSE / spread above.",
            )
        )
    parts.append(side_by_side(drawn))
    rows: Table = [
        [result.task, symbol, error.count // 3, *_milli(error), percent(error.rmse, error.label_std)]
        for result in known
        for symbol, error in result.by_element.items()
    ]
    heading = ["task", "element", "atoms", "RMSE, meV/Å", "MAE, meV/Å", "bias, meV/Å", "spread, meV/Å", "RMSE / spread"]
    return section("elements", "Errors by element and task", [*parts, table(heading, rows)])


def _element_figure(index: int, result: Evaluation, of: int) -> Html:
    symbols = list(result.by_element)
    svg = figures.bars(f"element-{index}", symbols, [1000 * result.by_element[s].rmse for s in symbols], "force RMSE, meV/Å")
    task = f" Task {result.task}." if of > 1 else ""
    return figure(
        svg,
        "Force error by element. An element far above the others is usually rare in the training data, or in surroundings "
        "that are." + task,
    )


def worst_frames(judgements: Sequence[Judgement]) -> Html:
    """The frames with the largest errors, named so that one can look at them."""
    parts = [
        paragraph(
            "The structures with the largest errors. One or two far above the typical error deserve a look: a wrong label "
            "(lamella data lint finds many), or a situation that the training data hardly contain."
        )
    ]
    several = len(judgements) > 1
    for judgement in judgements:
        result = judgement.evaluation
        kinds = {"forces": "By force error", "energy": "By energy error"}
        for key, title in kinds.items():
            found = result.worst.get(key, ())
            if not found or (key == "energy" and "forces" in result.errors and not _adds(result)):
                continue
            parts += [subsection(f"{title}, task {result.task}" if several else title), _worst_table(found[:_WORST])]
    if len(parts) == 1:
        parts = [paragraph("No frames were judged.")]
    return section("worst", "The worst structures", parts)


def _adds(result: Evaluation) -> bool:
    """Whether the worst energies name other frames than the worst forces do."""
    return {f.frame for f in result.worst.get("energy", ())[:3]} != {f.frame for f in result.worst.get("forces", ())[:3]}


def _worst_table(found: Sequence[FrameError]) -> Html:
    rows: Table = [
        [
            item.source,
            item.atoms,
            None if item.forces is None else 1000 * item.forces,
            None if item.largest is None else 1000 * item.largest,
            "–" if item.atom is None else str(item.atom),
            None if item.energy is None else 1000 * item.energy,
        ]
        for item in found
    ]
    return table(
        [
            "structure (file#index, from 0)",
            "atoms",
            "force RMSE, meV/Å",
            "largest force error, meV/Å",
            "on atom, from 0",
            "energy error, meV/atom",
        ],
        rows,
    )


def glossary() -> Html:
    """The words of the page, for a reader who has not met them."""
    return details(
        "What the words on this page mean",
        words(
            [
                (
                    "Potential",
                    "A function from the positions of atoms to their energy; forces are its slope. This one was fitted to "
                    "quantum-chemical calculations and evaluates thousands of times faster than they do.",
                ),
                ("Reference, label", "The energy, forces and virial that the quantum-chemical method gave for a structure."),
                (
                    "Training, validation",
                    "Training structures are the ones fitted. Validation structures are held back to see how "
                    "the model does on something new.",
                ),
                (
                    "meV",
                    "A thousandth of an electronvolt: 1 meV per atom is 0.096 kJ/mol of atoms; thermal energy at 300 K is "
                    "26 meV.",
                ),
                ("Task", "One source of labels, i.e. one quantum-chemical method. A model may learn several side by side."),
                ("Step", "One update of the model's weights from one small batch of structures."),
                ("Virial", "Minus volume times stress: what the pressure is computed from."),
            ]
        ),
    )
