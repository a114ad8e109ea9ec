"""Make the small golden models of ``tests/golden``: random models and what deepmd-kit computes from them.

Run with the Python of an environment that holds deepmd-kit 3.2.0 and nothing of lamella::

    python scripts/make_golden.py OUT [NAME ...]

For every case a training checkpoint ``NAME.pt`` and ``NAME.npz`` (positions, cell, symbols, energy, forces, virial, atomic
energies, descriptor of four frames) are written; a case of ``FROZEN`` is also frozen with ``dp --pt freeze`` to
``NAME.pth``, from which the program inside (deepmd-kit's) is then left out. Weights, environment statistics and energy
biases are random, so nothing agrees by accident; no frame has more neighbours than slots.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np

from deepmd_cases import Structure, freeze, most_by_element, most_neighbors, write
from golden_cases import CASES, FROZEN


def frames(type_map: list[str], rng: np.random.Generator) -> dict[str, tuple]:
    """Name -> (positions (n, 3) Å, cell (3, 3) Å or None, symbols)."""
    n, length = 12, 5.4
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3)[:n] * (length / 3)
    cell = np.array([[3.1, 0, 0], [0.7, 3.4, 0], [-0.5, 0.9, 3.9]])
    fractions = np.array([[0.05, 0.1, 0.0], [0.45, 0.5, 0.55], [0.9, 0.1, 0.6]])
    points: list[np.ndarray] = []
    while len(points) < 8:
        point = rng.uniform(-2.2, 2.2, 3)
        if all(np.linalg.norm(point - other) > 1.0 for other in points):
            points.append(point)

    def symbols(count: int, power: int = 1) -> list[str]:
        return [type_map[i**power % len(type_map)] for i in range(count)]

    return {
        "periodic": (grid + rng.normal(0, 0.2, (n, 3)), np.diag([length, length, length * 1.1]), symbols(n)),
        "triclinic_small": (fractions @ cell, cell, symbols(3)),
        "cluster": (np.array(points), None, symbols(8, 2)),
        "isolated": (np.array([[0.0, 0, 0], [1.1, 0, 0], [30.0, 0, 0]]), None, [type_map[0], type_map[-1], type_map[0]]),
    }


def structures(type_map: list[str], inputs: dict[str, list[str]], params: dict) -> dict[str, Structure]:
    """The frames of a case, with the properties the case gives them."""
    rng = np.random.default_rng(11)
    widths = {"fparam": params["fitting_net"].get("numb_fparam", 0), "charge_spin": 2}
    out = {}
    for frame, (positions, cell, symbols) in frames(type_map, np.random.default_rng(7)).items():
        given = {}
        for name, wanted in inputs.items():
            value = np.round(rng.normal(0, 1, widths[name]), 3) if name == "fparam" else rng.integers(0, 4, 2).astype(float)
            if frame in wanted:
                given[name] = value
        out[frame] = Structure(positions, cell, symbols, given)
    return out


def count_slots(params: dict, at: dict[str, Structure], spare: int = 2) -> None:
    """Fill in the slots of a model section: a few more than the frames need, so that none is cut away."""
    descriptor = params["descriptor"]
    if descriptor["type"] == "se_e2_a":
        descriptor["sel"] = [count + spare for count in most_by_element(at, descriptor["rcut"], params["type_map"])]
    elif descriptor["type"] == "dpa2":
        repinit, repformer = descriptor["repinit"], descriptor["repformer"]
        repformer["nsel"] = most_neighbors(at, repformer["rcut"]) + spare
        repinit.setdefault("three_body_rcut", 3.2)
        repinit["three_body_sel"] = most_neighbors(at, repinit["three_body_rcut"]) + spare
        repinit["nsel"] = max(most_neighbors(at, repinit["rcut"]), repformer["nsel"], repinit["three_body_sel"]) + spare + 1
    elif descriptor["type"] == "dpa3":
        repflow = descriptor["repflow"]
        for slots, cutoff in (("e_sel", "e_rcut"), ("a_sel", "a_rcut")):
            repflow[slots] = max(repflow[slots], most_neighbors(at, repflow[cutoff]) + spare)
    else:
        descriptor["sel"] = most_neighbors(at, descriptor["rcut"]) + spare


def multitask(params: dict, tasks: list[str], share_fitting: bool) -> dict:
    """The same section for every task: one descriptor, and one fitting net with dataset encoding or one each."""
    shared = {"map": params["type_map"], "descriptor": params["descriptor"]}
    if share_fitting:
        shared["fitting"] = params["fitting_net"]
    section = {"type_map": "map", "descriptor": "descriptor"}
    fitting = "fitting" if share_fitting else params["fitting_net"]
    return {
        "shared_dict": shared,
        "model_dict": {task: {**section, "fitting_net": copy.deepcopy(fitting)} for task in tasks},
    }


def make(name: str, case: dict, out: Path, seed: int) -> None:
    """One checkpoint and what deepmd-kit says of it."""
    own = ("mean", "inputs", "tasks", "share_fitting")
    params = copy.deepcopy({key: value for key, value in case.items() if key not in own})
    at = structures(params["type_map"], case.get("inputs", {}), params)
    count_slots(params, at)
    if "tasks" in case:
        params = multitask(params, case["tasks"], case.get("share_fitting", False))
    path = out / f"{name}.pt"
    arrays = write(path, params, at, seed, case.get("mean", True))
    if name in FROZEN:
        freeze(path)
    energy = next(float(value) for key, value in arrays.items() if key.endswith("periodic/energy"))
    print(f"{name}: {path.stat().st_size / 1e3:.0f} kB, E(periodic) = {energy:.6f} eV", flush=True)


def main() -> None:
    """Make the named cases, or all of them."""
    out, names = Path(sys.argv[1]), sys.argv[2:] or list(CASES)
    out.mkdir(parents=True, exist_ok=True)
    for seed, (name, case) in enumerate(CASES.items(), start=200):
        if name in names:
            make(name, case, out, seed)


if __name__ == "__main__":
    main()
