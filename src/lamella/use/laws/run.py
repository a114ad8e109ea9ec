"""All the laws, in the order of the table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

from lamella.errors import InputError, nearest
from lamella.models.potential import Potential
from lamella.use.laws import derivatives, inputs, locality, smoothness, symmetry
from lamella.use.laws.rows import Check, Checks
from lamella.use.laws.subject import Subject, subject_of
from lamella.use.predict import runnable

__all__ = ["LAWS", "check", "check_law", "iter_checks"]

LAWS: dict[str, Callable[[Subject], Check]] = {
    "translation": symmetry.translation,
    "rotation": symmetry.rotation_law,
    "reflection": symmetry.reflection,
    "permutation of atoms": symmetry.permutation,
    "permutation of edges": symmetry.edge_order,
    "supercell": symmetry.supercells,
    "wrapping": symmetry.wrapping,
    "other cell vectors": symmetry.left_handed_cells,
    "mixed periodicity": symmetry.mixed_periodicity,
    "forces": derivatives.forces_law,
    "virial": derivatives.virial_law,
    "sum of forces": derivatives.force_sum,
    "torque": derivatives.torque,
    "collinear angles": derivatives.collinear,
    "distant fragments": locality.distant_fragments,
    "isolated atoms": locality.isolated_atoms,
    "one atom": locality.one_atom,
    "batch equals singles": locality.batching,
    "no gradient across frames": locality.frame_gradient,
    "baseline": locality.baseline,
    "smooth at the cutoff": smoothness.cutoff_law,
    "smooth at inner cutoffs": smoothness.inner_cutoffs_law,
    "continuity": smoothness.continuity,
    "inputs kept": inputs.inputs_kept,
    "non-contiguous inputs": inputs.non_contiguous,
    "unknown element": inputs.unknown_element,
    "float32 against float64": inputs.single_precision,
    "save and load": inputs.save_and_load,
}
"""Law by name."""


def check(model: Potential | str | Path, task: str | None = None, seed: int = 0) -> Checks:
    """Measure every law of physics and of good manners that a potential must obey.

    Runs in float64 on a copy: the model is not changed. Structures are small, random (seeded) and made of the model's
    elements, so nothing is said about how well the model was trained.

    Args:
        model: any potential, of random or trained weights, or a path that :func:`lamella.load` reads.
        task: which task's energies; ``None`` checks all tasks and keeps the worst of each law.
        seed: of structures and directions.

    Returns:
        One row per law; ``.passed`` where all hold.

    Raises:
        InputError: not a model, or it has no such task.
        CheckpointError: a path that holds no model.
    """
    return Checks(tuple(iter_checks(runnable(model), task, seed)))


def iter_checks(model: Potential, task: str | None = None, seed: int = 0) -> Iterator[Check]:
    """The rows of :func:`check`, each as soon as it is measured."""
    tasks = model.tasks if task is None else (model.tasks[model.task_index(task)],)
    subjects = [subject_of(model, name, seed) for name in tasks]
    for law in LAWS:
        rows = [_measured(law, subject) for subject in subjects]
        yield max(rows, key=_severity)


def _severity(row: Check) -> tuple[bool, bool, float]:
    number = math.isfinite(row.violation)
    return not row.passed, not number, row.violation if number else 0.0


def check_law(law: str, model: Potential, task: str | None = None, seed: int = 0) -> Check:
    """One law alone.

    Raises:
        InputError: no law of that name.
    """
    if law not in LAWS:
        raise InputError(f"no law is called {law!r}{nearest(law, LAWS)}; known are {', '.join(LAWS)}.")
    return _measured(law, subject_of(model, model.tasks[model.task_index(task)], seed))


def _measured(law: str, subject: Subject) -> Check:
    try:
        row = LAWS[law](subject)
    except Exception as error:  # a model that cannot be run on a lawful structure breaks the law, whatever it raises
        said = f"Raised {type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
        row = Check(law, float("nan"), 0.0, said)
    return Check(row.law, row.violation, row.bound, row.sentence, subject.task)
