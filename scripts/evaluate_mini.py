"""Tables of a model card: errors of lamella-mini on its test sets, and zero-shot on sets that it never saw.

    python scripts/evaluate_mini.py MODEL --out WORK                 # every test set that scripts/train_mini.py held out
    python scripts/evaluate_mini.py MODEL --out WORK --data DATA     # the downstream sets below DATA as well
    python scripts/evaluate_mini.py MODEL --out WORK --frames 50     # fewer frames of each set, for a first look

MODEL is what ``lamella.load`` reads: a run folder, a step of one, a bundle. Writes WORK/errors.json and WORK/errors.md.

**Test sets.** RMSE and MAE after the task's energies per element, beside the spread of the labels: what a model that always
answers the mean would be off by. Rows marked "in range" hold the test frames that the filter of the training data would have
let through; the others hold all.

**Downstream.** A set of another level of theory has another energy per element, and no task of the model is its own. The
task whose forces are nearest on some frames of the set's training part is taken, the energies per element are fitted to such
frames by least squares, and the errors are those of the test part. No weight is changed. Beside them stands the model of
nothing: energies per element fitted likewise, forces of zero.
"""

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

import lamella
from lamella.data.baseline import fit_baseline
from lamella.data.digest import combine, frame_digest
from lamella.data.source import open_frames
from lamella.models.potential import Potential
from lamella.types import Frame
from lamella.use.predict import predict_frames, runnable
from mini_data import SEED, TASKS, in_range

REFIT = 200  # training frames that a downstream set's energies per element are fitted to
RANKED = 40  # ... and of those, frames on which the tasks are compared

DOWNSTREAM: dict[str, tuple[str, str, str]] = {
    "acac": ("PBE-D3/def2-SVP", "train_300K", "test_300K"),
    "formic_dimer": ("PBE, PySCF", "train", "test"),
    "al_mil53_pbed3": ("PBE-D3, CP2K", "train", "test"),
    "water_pbe0ts": ("PBE0+TS", "train", "valid"),
    "water_pbe_dplr": ("PBE, 1500 eV", "train", "test"),
    "water_rpbed3": ("RPBE-D3, all-electron", "train", "test"),
    "hfo2_pbe": ("PBE", "train", "test"),
    "gete_pbe": ("PBE, norm-conserving", "train", "test"),
    "sse_lgps_pbe": ("PBE", "train", "test"),
    "inp_lda": ("LDA", "train", "test"),
    "w_pbe": ("PBE, CASTEP", "train", "test"),
    "ta_pbe": ("PBE", "train", "test"),
    "ti_pbe": ("PBE, 400 eV", "train", "test"),
    "cunipd_pbe": ("PBE, 400 eV", "train", "test"),
    "cho_mn15": ("MN15/6-31G**", "train", "test"),
    "spice_mini": ("wB97M-D3(BJ)/def2-TZVPPD", "train", "test"),
    "spice_dipep": ("wB97M-D3(BJ)/def2-TZVPPD", "train", "test"),
}
"""Set below DATA: method, the file that energies per element are fitted to, the file of the errors."""


@dataclass(frozen=True)
class Errors:
    """Errors over some frames: energies in meV/atom, forces in meV/A, virials in meV/atom."""

    frames: int
    energy_rmse: float
    energy_mae: float
    energy_std: float
    forces_rmse: float
    forces_mae: float
    forces_std: float
    virial_rmse: float | None
    virial_std: float | None


@dataclass(frozen=True)
class Row:
    """Labels and predictions of one frame, energies less the energies per element, per atom."""

    energy: tuple[float, float]
    forces: tuple[np.ndarray, np.ndarray]
    virial: tuple[np.ndarray, np.ndarray] | None
    inside: bool


def test_tables(model: Potential, work: Path, limit: int | None) -> list[dict[str, Any]]:
    """A row for every test set, and one for those of its frames that are in range where these are not all."""
    table = []
    for task in (name for name in TASKS if name in model.tasks):
        for folder in sorted((work / "data" / "test" / task).iterdir()):
            energies = _task_energies(model, task)
            frames, unknown = _known(energies, _some(open_frames([str(folder)]), limit))
            if not frames:
                continue
            about = {"task": task, "set": folder.name, "unknown_elements": unknown, "hash": _hash(frames)}
            rows = list(_rows(model, task, frames, energies))
            table.append(about | {"kind": "all"} | _shown(rows))
            inside = [row for row in rows if row.inside]
            if inside and len(inside) < len(rows):
                table.append(about | {"kind": "in range"} | _shown(inside))
            print(table[-1], flush=True)
    return table


def downstream_table(model: Potential, data: Path, limit: int | None) -> list[dict[str, Any]]:
    """A row for every downstream set that is there and whose elements the model knows."""
    table = []
    for name, (method, fitted, tested) in DOWNSTREAM.items():
        if not (data / name).is_dir():
            print(f"{name}: not below {data}", flush=True)
            continue
        every = dict.fromkeys(model.numbers, 0.0)
        seen, _ = _known(every, _some(open_frames([str(data / name / f"{fitted}.extxyz")]), REFIT))
        task, scores = _nearest_task(model, seen)
        energies = _per_element(_without_model(model, task, seen))
        frames, unknown = _known(energies, _some(open_frames([str(data / name / f"{tested}.extxyz")]), limit))
        rows = list(_rows(model, task, frames, energies))
        nothing = _zero_model(seen, frames)
        table.append(
            {"set": name, "method": method, "task": task, "unknown_elements": unknown, "hash": _hash(frames)}
            | _shown(rows)
            | {"nothing_energy_rmse": nothing, "forces_rmse_by_task": scores}
        )
        print(table[-1], flush=True)
    return table


def _some(frames: Any, limit: int | None) -> list[Frame]:
    """At most so many frames, drawn at random, always the same, in the order in which they were drawn."""
    order = np.random.default_rng(SEED).permutation(len(frames))
    return [frames[index] for index in order.tolist()[:limit]]


def _known(energies: Mapping[int, float], frames: Sequence[Frame]) -> tuple[list[Frame], int]:
    """The frames for all of whose elements there is an energy, and how many others there are."""
    known = [frame for frame in frames if energies.keys() >= set(frame.numbers.tolist())]
    return known, len(frames) - len(known)


def _hash(frames: Sequence[Frame]) -> str:
    return combine(frame_digest(frame) for frame in frames)


def _task_energies(model: Potential, task: str) -> dict[int, float]:
    """Energy of a task, eV, by atomic number; an element that it never saw has none."""
    values = model.baseline[model.task_index(task)].tolist()
    return {number: value for number, value in zip(model.numbers, values, strict=True) if value != 0.0}


def _rows(model: Potential, task: str, frames: Sequence[Frame], energies: Mapping[int, float]) -> Iterator[Row]:
    """Labels beside predictions with ``energies`` in place of the task's own energies per element."""
    own = defaultdict(float, _task_energies(model, task))
    for frame, found in predict_frames(model, frames, task):
        n, numbers = len(frame), frame.numbers.tolist()
        label = (float(frame.labels["energy"]) - sum(energies[z] for z in numbers)) / n
        energy = (found.energy - sum(own[z] for z in numbers)) / n
        virial = None
        if "virial" in frame.labels:
            virial = (np.asarray(frame.labels["virial"]) / n, found.virial / n)
        yield Row((label, energy), (np.asarray(frame.labels["forces"]), found.forces), virial, in_range(frame))


def _shown(rows: Sequence[Row]) -> dict[str, Any]:
    """Errors of some rows in meV."""
    energy = np.array([row.energy for row in rows])
    forces = np.stack([np.concatenate([row.forces[side].ravel() for row in rows]) for side in (0, 1)], axis=1)
    pairs = [row.virial for row in rows if row.virial is not None]
    virial = None if not pairs else np.stack([np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1)], 1)
    energy_errors, forces_errors = _error(energy), _error(forces)
    virial_errors = (None, None, None) if virial is None else _error(virial)
    return asdict(Errors(len(rows), *energy_errors, *forces_errors, virial_errors[0], virial_errors[2]))


def _error(pairs: np.ndarray) -> tuple[float, float, float]:
    """RMSE, MAE and standard deviation of the labels, times 1000, of (m, 2) pairs of label and prediction."""
    difference = pairs[:, 1] - pairs[:, 0]
    rmse = float(np.sqrt(np.mean(difference**2)))
    return 1e3 * rmse, 1e3 * float(np.abs(difference).mean()), 1e3 * float(pairs[:, 0].std())


def _nearest_task(model: Potential, seen: Sequence[Frame]) -> tuple[str, dict[str, float]]:
    """The task whose forces are nearest to those of the first frames, and the force RMSE of every task, meV/A.

    A task takes part only if it has an energy for every element of the set; where none has, all do.
    """
    covered = {int(z) for frame in seen for z in frame.numbers}
    able = [task for task in model.tasks if _task_energies(model, task).keys() >= covered] or list(model.tasks)
    zero = dict.fromkeys(model.numbers, 0.0)
    scores = {task: _shown(list(_rows(model, task, seen[:RANKED], zero)))["forces_rmse"] for task in able}
    return min(scores, key=lambda task: scores[task]), scores


def _without_model(model: Potential, task: str, frames: Sequence[Frame]) -> list[Frame]:
    """The frames with the part of their energy that the network does not give as the label."""
    own = defaultdict(float, _task_energies(model, task))
    left = []
    for frame, found in predict_frames(model, frames, task):
        network = found.energy - sum(own[z] for z in frame.numbers.tolist())
        labels = dict(frame.labels) | {"energy": np.asarray(float(frame.labels["energy"]) - network)}
        left.append(replace(frame, labels=labels))
    return left


def _per_element(frames: Sequence[Frame]) -> dict[int, float]:
    """Energies per element by least squares, by atomic number."""
    present = sorted({int(z) for frame in frames for z in frame.numbers})
    fitted = fit_baseline(frames, [chemical_symbols[z] for z in present]).energies
    return {z: fitted[chemical_symbols[z]] for z in present}


def _zero_model(seen: Sequence[Frame], frames: Sequence[Frame]) -> float:
    """Energy RMSE of energies per element alone, fitted to ``seen``, on ``frames``, meV/atom."""
    energies = _per_element(seen)
    errors = [
        (float(frame.labels["energy"]) - sum(energies[z] for z in frame.numbers.tolist())) / len(frame) for frame in frames
    ]
    return 1e3 * math.sqrt(float(np.mean(np.square(errors))))


def markdown(tests: Sequence[dict[str, Any]], downstream: Sequence[dict[str, Any]]) -> str:
    """The tables of a model card."""
    lines = [
        "| task | test set | frames | E RMSE | E MAE | E std | F RMSE | F MAE | F std | V RMSE | V std |",
        "|" + "---|" * 11,
    ]
    for row in tests:
        virial = [row["virial_rmse"], row["virial_std"]]
        numbers = [row[f"{q}_{k}"] for q in ("energy", "forces") for k in ("rmse", "mae", "std")] + virial
        where = row["set"].replace("_unseen_compositions", ", unseen compositions") + (
            ", in range" if row["kind"] == "in range" else ""
        )
        lines.append(f"| {row['task']} | {where} | {row['frames']} | " + " | ".join(map(_number, numbers)) + " |")
    if downstream:
        lines += [
            "",
            "| set | labels | task used | frames | E RMSE | of nothing | F RMSE | F MAE | F std |",
            "|" + "---|" * 9,
        ]
    for row in downstream:
        keys = ("energy_rmse", "nothing_energy_rmse", "forces_rmse", "forces_mae", "forces_std")
        numbers = [row[key] for key in keys]
        what = f"| {row['set']} | {row['method']} | {row['task']} | {row['frames']} | "
        lines.append(what + " | ".join(map(_number, numbers)) + " |")
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="what lamella.load reads")
    parser.add_argument("--out", type=Path, required=True, help="the folder of train_mini.py; tables are written there")
    parser.add_argument("--data", type=Path, help="folder of the data sets; without it no downstream table")
    parser.add_argument("--frames", type=int, help="at most so many frames of each test set")
    given = parser.parse_args()
    model = runnable(lamella.load(given.model))
    tests = test_tables(model, given.out, given.frames)
    downstream = downstream_table(model, given.data, given.frames) if given.data is not None else []
    content = {"model": str(model.metadata.get("step", "")), "parameters": model.parameter_count()}
    content |= {"tests": tests, "downstream": downstream}
    (given.out / "errors.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (given.out / "errors.md").write_text(markdown(tests, downstream), encoding="utf-8")
    print(markdown(tests, downstream))


if __name__ == "__main__":
    main()
