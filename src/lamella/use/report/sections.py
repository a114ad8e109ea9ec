"""Sections on how the model came about and behaves: learning curves, molecular dynamics, laws of physics, manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from lamella.use.report import figures
from lamella.use.report.figures import Curve
from lamella.use.report.page import (
    Cell,
    Html,
    Table,
    details,
    figure,
    number,
    paragraph,
    preformatted,
    section,
    subsection,
    table,
    tile,
)
from lamella.use.report.page import figures as side_by_side
from lamella.use.report.records import Dynamics, Laws
from lamella.use.report.run import History, Run

__all__ = ["duration", "dynamics", "dynamics_tile", "laws", "laws_tile", "learning", "manifest"]

_QUANTITIES = {
    "loss": (
        "loss",
        1.0,
        "The loss is the number that training makes small: a weighted sum of squared errors. Its weights may change "
        "during training, so read the errors beside it; it should fall and then level off.",
    ),
    "forces": (
        "force RMSE, meV/Å",
        1000.0,
        "Force error. All is well when both lines fall and stay close together; a validation line that "
        "rises while the training line still falls means overfitting.",
    ),
    "energy": (
        "energy RMSE, meV/atom",
        1000.0,
        "Energy error per atom. It is noisier than the force error, since a structure has one energy but many forces.",
    ),
    "virial": ("virial RMSE, meV/atom", 1000.0, "Virial error per atom: how well the pressure is learnt."),
}

_TOGETHER = 4
"""Tasks in one drawing of curves: as many as there are colours."""

_POINTS = 60


def duration(seconds: float) -> str:
    """``45 s``, ``4 min 10 s``, ``3 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{number(seconds, 2)} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def learning(histories: Sequence[History], spreads: Mapping[str, float]) -> Html:
    """Loss and errors against steps and against wall time, and the learning rate.

    Args:
        histories: one per task and split.
        spreads: force label std by task, eV/Å, drawn as a level where known.
    """
    drawn: list[Html] = []
    unit, second = _time_unit(max((float(h.seconds[-1]) for h in histories), default=0.0))
    tasks = list(dict.fromkeys(history.task for history in histories))
    groups = [tasks[first : first + _TOGETHER] for first in range(0, len(tasks), _TOGETHER)]
    axes = [("steps", "step"), ("time", f"wall time, {unit}")][: 2 if len(groups) == 1 else 1]
    for (key, (label, scale, caption)), group in product(_QUANTITIES.items(), groups):
        lines = _lines([h for h in histories if h.task in group], key, scale, len(tasks) > 1)
        if not lines:
            continue
        for axis, x_label in axes:
            chosen = [curve if axis == "steps" else curve._replace(x=time / second) for curve, time in lines]
            if key == "forces" and len(spreads) == 1:
                ends = np.array([min(c.x.min() for c in chosen), max(c.x.max() for c in chosen)])
                level = 1000.0 * next(iter(spreads.values()))
                chosen.append(Curve("spread of labels", ends, np.array([level, level]), 0, ":"))
            said = caption if axis == "steps" else f"The same against wall time ({label.split(',')[0]})."
            name = f"{key}-{axis}" + (f"-{groups.index(group)}" if group is not groups[0] else "")
            drawn.append(figure(figures.curves(name, chosen, x_label, label, log=True), said))
    rated = [h for h in histories if h.split == "train" and "lr" in h.values]
    if rated:
        steps, rates = (np.concatenate(parts) for parts in zip(*((h.step, h.values["lr"]) for h in rated), strict=True))
        order = np.argsort(steps, kind="stable")
        svg = figures.curves("lr-steps", [Curve("", steps[order], rates[order])], "step", "learning rate")
        drawn.append(
            figure(
                svg,
                "Learning rate: how far each step moves the weights. It falls as the recipe says, so that training settles.",
            )
        )
    averaged = any(h.split == "train" and len(h.step) > _POINTS for h in histories)
    jumpy = "averaged over stretches of steps" if averaged else "so they jump about"
    intro = f"Training errors are those of single batches, {jumpy}; validation errors are of all validation data."
    if not drawn:
        return section(
            "learning", "Learning curves", [paragraph("The run logged no steps, so there are no learning curves.")]
        )
    return section("learning", "Learning curves", [paragraph(intro), side_by_side(drawn)])


def _time_unit(seconds: float) -> tuple[str, float]:
    """A unit in which a time is a small number, and its seconds."""
    return ("s", 1.0) if seconds < 180 else ("min", 60.0) if seconds < 3 * 3600 else ("h", 3600.0)


def _lines(histories: Sequence[History], key: str, scale: float, several: bool) -> list[tuple[Curve, np.ndarray]]:
    """A curve against steps for each history that knows ``key``, and the seconds of its points; named by task or not."""
    tasks = list(dict.fromkeys(history.task for history in histories))
    lines = []
    for history in histories:
        values = history.values.get(key)
        if values is None:
            continue
        known = np.isfinite(values)
        step, seconds, values = history.step[known], history.seconds[known], scale * values[known]
        if history.split == "train":
            step, seconds, values = _averaged(step, seconds, values, power=1.0 if key == "loss" else 2.0)
        kind = {"train": "training", "valid": "validation"}[history.split]
        name = f"{history.task}, {kind}" if several else kind
        colour = tasks.index(history.task)
        lines.append((Curve(name, step, values, colour, "--" if history.split == "train" else "-"), seconds))
    return lines


def _averaged(
    step: np.ndarray, seconds: np.ndarray, values: np.ndarray, power: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At most :data:`_POINTS` points, each the power mean of its share: single batches jump about too much to read."""
    if len(step) <= _POINTS:
        return step, seconds, values
    shares = np.array_split(np.arange(len(step)), _POINTS)
    mean = [float(np.mean(values[share] ** power) ** (1.0 / power)) for share in shares]
    return np.array([step[s].mean() for s in shares]), np.array([seconds[s].mean() for s in shares]), np.array(mean)


def dynamics_tile(md: Dynamics) -> Html:
    """The drift as a headline figure."""
    if md.drift is not None:
        return tile(
            "Energy drift",
            number(abs(md.drift), 2),
            "eV/atom/ps",
            f"over {number(md.time)} ps of dynamics",
        )
    return tile(
        "Dynamics", number(md.time), "ps", f"mean temperature {number(md.temperature.mean)} K" if md.temperature else ""
    )


def dynamics(md: Dynamics | None) -> Html:
    """Energy conservation and temperature of the run in ``md.json``."""
    if md is None:
        words = "No molecular dynamics has been run with this model yet (there is no md.json in the run folder)."
        return section("dynamics", "Molecular dynamics", [paragraph(words)])
    parts = [
        paragraph(
            f"The model was used to move {md.n_atoms} atoms for {number(md.time)} ps in steps of "
            f"{number(md.config.timestep)} fs "
            f"({md.config.ensemble.upper()}, started at {number(md.config.temperature)} K)."
        )
    ]
    if md.stopped:
        parts.append(paragraph(f"It ended early: {md.stopped}"))
    drawn = _dynamics_figures(md)
    parts += [
        _dynamics_table(md),
        side_by_side(drawn) if drawn else paragraph("No samples were kept, so there is nothing to draw."),
    ]
    return section("dynamics", "Molecular dynamics", parts)


def _dynamics_table(md: Dynamics) -> Html:
    rows: list[list[Cell]] = []
    if md.drift is not None:
        rows.append(["drift of the total energy: slope of a line through it", number(md.drift, 2), "eV/atom/ps"])
    if md.fluctuation is not None:
        rows.append(["fluctuation of the total energy about that line", number(1e6 * md.fluctuation, 2), "µeV/atom"])
    for name, spread, unit in (
        ("temperature", md.temperature, "K"),
        ("pressure", md.pressure, "GPa"),
        ("volume", md.volume, "Å³"),
    ):
        if spread is not None:
            deviation = f" ± {number(spread.std, 2)}" if spread.std > 1e-6 * abs(spread.mean) else ""
            rows.append(
                [f"{name}: mean{' ± standard deviation' if deviation else ''}", f"{number(spread.mean, 4)}{deviation}", unit]
            )
    if md.steps_per_second:
        rows.append(["speed", number(md.steps_per_second, 3), "steps/s"])
    return table(["quantity", "value", "unit"], rows)


def _dynamics_figures(md: Dynamics) -> list[Html]:
    time, energy = np.array(md.samples.time), np.array(md.samples.energy)
    temperature = np.array(md.samples.temperature)
    if not (len(time) == len(energy) == len(temperature) > 0):
        return []
    per_atom = 1000.0 * (energy - energy[0]) / max(md.n_atoms, 1)
    lines = [Curve("total energy", time, per_atom)]
    if md.drift is not None:
        lines.append(Curve("fitted line", time, 1000.0 * md.drift * (time - time.mean()) + per_atom.mean(), 1, "--"))
    conserved = (
        "Kinetic plus potential energy, against its start. At constant energy it must not wander: a small ripple around a "
        "level line is right; a slope means that forces are not the derivative of the energy, or that the time step is too "
        "long. For scale: at 300 K the motion of the atoms carries 39 meV/atom."
    )
    said = conserved if md.config.ensemble == "nve" else "Kinetic plus potential energy; the thermostat feeds and drains it."
    return [
        figure(figures.curves("md-energy", lines, "time, ps", "total energy − start, meV/atom"), said),
        figure(
            figures.curves("md-temperature", [Curve("", time, temperature)], "time, ps", "temperature, K"),
            "Temperature of the moving atoms. In a small box it swings widely; it should swing about a steady mean.",
        ),
    ]


def laws_tile(checked: Laws) -> Html:
    """How many laws hold, as a headline figure."""
    held = sum(row.passed for row in checked.rows)
    return tile(
        "Laws of physics",
        f"{held} of {len(checked.rows)}",
        "hold",
        "symmetries, forces as derivatives, smoothness, locality",
    )


def laws(checked: Laws | None) -> Html:
    """One row per law."""
    if checked is None:
        words = "The laws of physics have not been checked for this model yet (there is no check.json in the run folder)."
        return section("laws", "Laws of physics", [paragraph(words)])
    broken = [row.law for row in checked.rows if not row.passed]
    verdict = f"All {len(checked.rows)} hold." if not broken else f"Broken: {', '.join(broken)}."
    shown: Table = [
        [row.law, row.passed, _scientific(row.violation), _scientific(row.bound), row.sentence] for row in checked.rows
    ]
    return section(
        "laws",
        "Laws of physics",
        [
            paragraph(
                "Whatever it was trained on, a potential must not care where a molecule is, how it is turned or in which "
                "order its atoms "
                "are listed; its forces must be the slope of its energy. Each row is measured in double precision on "
                "random structures: "
                f"the violation must stay below the bound. {verdict}"
            ),
            table(["law", "verdict", "violation", "bound", "what was done and found"], shown),
        ],
    )


def _scientific(value: float | None) -> str:
    return "not a number" if value is None else "0" if value == 0 else f"{value:.1e}".replace("-", "\u2212")


def manifest(run: Run, facts: Table) -> Html:
    """Everything that made the model: facts in a table, the model's metadata, the resolved recipe verbatim."""
    parts = [paragraph("What one needs to make this model again."), table(["what", "value"], facts)]
    metadata = run.model.get("metadata")
    if metadata:
        words = json.dumps(metadata, indent=1, ensure_ascii=False, sort_keys=True)
        parts.append(details("What the model file says of its data and origin", preformatted(words)))
    if run.recipe_text:
        parts += [subsection("Recipe, with every default written out (config.yaml)"), preformatted(run.recipe_text.rstrip())]
    if run.remarks:
        parts += [subsection("Remarks")] + [paragraph(remark, "note") for remark in run.remarks]
    return section("manifest", "Manifest", parts)
