"""Sections on how the model came about and behaves: learning curves, molecular dynamics, laws of physics, manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lamella.use.report import figures
from lamella.use.report.figures import Curve
from lamella.use.report.page import (
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
from lamella.use.report.run import History, Run

__all__ = ["duration", "dynamics", "dynamics_tile", "laws", "laws_tile", "learning", "manifest"]

_QUANTITIES = {
    "loss": ("loss", 1.0, "The loss is the number that training makes small: a weighted sum of squared errors. Its weights may change "
             "during training, so read the errors beside it; it should fall and then level off."),
    "forces": ("force RMSE, meV/Å", 1000.0, "Force error. All is well when both lines fall and stay close together; a validation line that "
               "rises while the training line still falls means overfitting."),
    "energy": ("energy RMSE, meV/atom", 1000.0, "Energy error per atom. It is noisier than the force error, since a structure has one "
               "energy but many forces."),
    "virial": ("virial RMSE, meV/atom", 1000.0, "Virial error per atom: how well the pressure is learnt."),
}


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
    for key, (label, scale, caption) in _QUANTITIES.items():
        lines = _lines(histories, key, scale)
        if not lines:
            continue
        for axis, x_label in (("steps", "step"), ("time", f"wall time, {unit}")):
            chosen = [curve if axis == "steps" else curve._replace(x=time / second) for curve, time in lines]
            if key == "forces" and len(spreads) == 1:
                ends = np.array([min(c.x.min() for c in chosen), max(c.x.max() for c in chosen)])
                level = 1000.0 * next(iter(spreads.values()))
                chosen.append(Curve("spread of reference forces", ends, np.array([level, level]), 0, ":"))
            said = caption if axis == "steps" else f"The same against wall time ({label.split(',')[0]})."
            drawn.append(figure(figures.curves(f"{key}-{axis}", chosen, x_label, label, log=True), said))
    rated = [h for h in histories if h.split == "train" and "lr" in h.values]
    if rated:
        steps, rates = (np.concatenate(parts) for parts in zip(*((h.step, h.values["lr"]) for h in rated), strict=True))
        order = np.argsort(steps, kind="stable")
        svg = figures.curves("lr-steps", [Curve("", steps[order], rates[order])], "step", "learning rate")
        drawn.append(figure(svg, "Learning rate: how far each step moves the weights. It falls as the recipe says, so that training settles."))
    if any(h.split == "train" and len(h.step) > _POINTS for h in histories):
        intro = "Training errors are those of single batches, averaged over stretches of steps; validation errors are of all validation data."
    else:
        intro = "Training errors are those of single batches, so they jump about; validation errors are of all validation data."
    if not drawn:
        return section("learning", "Learning curves", [paragraph("The run logged no steps, so there are no learning curves.")])
    return section("learning", "Learning curves", [paragraph(intro), side_by_side(drawn)])


def _time_unit(seconds: float) -> tuple[str, float]:
    """A unit in which a time is a small number, and its seconds."""
    return ("s", 1.0) if seconds < 180 else ("min", 60.0) if seconds < 3 * 3600 else ("h", 3600.0)


def _lines(histories: Sequence[History], key: str, scale: float) -> list[tuple[Curve, np.ndarray]]:
    """A curve against steps for each history that knows ``key``, and the seconds of its points."""
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
        name = f"{history.task}, {kind}" if len(tasks) > 1 else kind
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


def dynamics_tile(md: Mapping[str, Any]) -> Html:
    """The drift as a headline figure."""
    drift, steps = md.get("drift"), int(md.get("steps") or 0)
    time = steps * float((md.get("config") or {}).get("timestep") or 0.0) / 1000.0
    if isinstance(drift, (int, float)):
        return tile("Energy drift in dynamics", number(abs(drift), 2), "eV/atom/ps", f"over {number(time)} ps at constant energy")
    mean = (md.get("temperature") or {}).get("mean")
    return tile("Dynamics", number(time), "ps", f"mean temperature {number(mean)} K" if mean is not None else "")


def dynamics(md: Mapping[str, Any] | None) -> Html:
    """Energy conservation and temperature of the run in ``md.json``."""
    if md is None:
        words = "No molecular dynamics has been run with this model yet (md.json is not in the run folder)."
        return section("dynamics", "Molecular dynamics", [paragraph(words)])
    config, samples = md.get("config") or {}, md.get("samples") or {}
    n_atoms, steps = int(md.get("n_atoms") or 0), int(md.get("steps") or 0)
    timestep = float(config.get("timestep") or 0.0)
    parts = [
        paragraph(
            f"The model was used to move {n_atoms} atoms for {number(steps * timestep / 1000)} ps in steps of {number(timestep)} fs "
            f"({str(config.get('ensemble', '')).upper()}, started at {number(config.get('temperature'))} K)."
        )
    ]
    if md.get("stopped"):
        parts.append(paragraph(f"It ended early: {md['stopped']}"))
    parts.append(_dynamics_table(md))
    drawn = _dynamics_figures(samples, n_atoms, str(config.get("ensemble", "")), md.get("drift"))
    parts.append(side_by_side(drawn) if drawn else paragraph("No samples were kept, so there is nothing to draw."))
    return section("dynamics", "Molecular dynamics", parts)


def _dynamics_table(md: Mapping[str, Any]) -> Html:
    rows: list[list[str | float | None]] = []
    if md.get("drift") is not None:
        rows.append(["drift of the total energy: slope of a line through it", number(md["drift"], 2), "eV/atom/ps"])
        rows.append(["fluctuation of the total energy about that line", number(1e6 * md["fluctuation"], 2), "µeV/atom"])
    for name, unit in (("temperature", "K"), ("pressure", "GPa"), ("volume", "Å³")):
        value = md.get(name)
        if value:
            rows.append([f"{name}: mean ± standard deviation", f"{number(value['mean'], 4)} ± {number(value['std'], 2)}", unit])
    if md.get("steps_per_second"):
        rows.append(["speed", number(md["steps_per_second"], 3), "steps/s"])
    return table(["quantity", "value", "unit"], rows)


def _dynamics_figures(samples: Mapping[str, Any], n_atoms: int, ensemble: str, drift: object) -> list[Html]:
    time = np.asarray(samples.get("time") or [], dtype=float)
    energy = np.asarray(samples.get("energy") or [], dtype=float)
    temperature = np.asarray(samples.get("temperature") or [], dtype=float)
    drawn = []
    if len(time) and len(energy) == len(time) and n_atoms:
        per_atom = 1000.0 * (energy - energy[0]) / n_atoms
        lines = [Curve("total energy", time, per_atom)]
        if isinstance(drift, (int, float)):
            slope = 1000.0 * drift
            lines.append(Curve("fitted line", time, slope * (time - time.mean()) + per_atom.mean(), 1, "--"))
        svg = figures.curves("md-energy", lines, "time, ps", "total energy − start, meV/atom")
        nve = "Kinetic plus potential energy. At constant energy it must not wander: a small ripple around a level line is right, a slope "
        nve += "means that forces are not the derivative of the energy, or that the time step is too long."
        drawn.append(figure(svg, nve if ensemble == "nve" else "Kinetic plus potential energy; the thermostat feeds and drains it."))
    if len(time) and len(temperature) == len(time):
        svg = figures.curves("md-temperature", [Curve("", time, temperature)], "time, ps", "temperature, K")
        said = "Temperature of the moving atoms. In a small box it swings widely; it should swing about a steady mean."
        drawn.append(figure(svg, said))
    return drawn


def laws_tile(check: Mapping[str, Any]) -> Html:
    """How many laws hold, as a headline figure."""
    rows = _law_rows(check)
    held = sum(bool(row.get("passed")) for row in rows)
    return tile("Laws of physics", f"{held} of {len(rows)}", "hold", "symmetries, forces as derivatives, smoothness, locality")


def laws(check: Mapping[str, Any] | None) -> Html:
    """One row per law."""
    if check is None:
        words = "The laws of physics have not been checked for this model yet (check.json is not in the run folder)."
        return section("laws", "Laws of physics", [paragraph(words)])
    rows = _law_rows(check)
    broken = [str(row.get("law")) for row in rows if not row.get("passed")]
    verdict = f"All {len(rows)} hold." if not broken else f"Broken: {', '.join(broken)}."
    shown: Table = [
        [str(row.get("law")), bool(row.get("passed")), f"{_float(row):.1e}", f"{_float(row, 'bound'):.1e}", str(row.get("sentence", ""))]
        for row in rows
    ]
    return section(
        "laws",
        "Laws of physics",
        [
            paragraph(
                "Whatever it was trained on, a potential must not care where a molecule is, how it is turned or in which order its atoms "
                "are listed; its forces must be the slope of its energy. Each row is measured in double precision on random structures: "
                f"the violation must stay below the bound. {verdict}"
            ),
            table(["law", "verdict", "violation", "bound", "what was done and found"], shown),
        ],
    )


def _law_rows(check: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row for row in check.get("rows") or [] if isinstance(row, dict)]


def _float(row: Mapping[str, Any], key: str = "violation") -> float:
    value = row.get(key)
    return float(value) if isinstance(value, (int, float)) else float("nan")


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
