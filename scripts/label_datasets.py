"""Generate and label the data sets that lamella ships.

    pip install -r scripts/label_requirements.txt
    python scripts/label_datasets.py                       # every set, about 35 core minutes
    python scripts/label_datasets.py --only lif_gfn1 --out DIR --jobs 2

Each set is a list of units (one trajectory or one batch of geometries) with its own seed.  A unit
is computed in a single-threaded process and kept in the work folder under a key of its parameters,
so an interrupted run continues where it stopped (empty the folder after changing code or constants).
At the end the units of a set are joined, in order, into NAME.extxyz.gz, and NAME.json records method,
versions, seeds, parameters, statistics and checks.  Dynamics amplify rounding, so geometries repeat
only with the same versions on the same kind of processor; the labels of a given geometry repeat.
Units: eV, Angstrom; stress as in ASE (tensile positive; Voigt xx, yy, zz, yz, xz, xy).
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import pathlib
import platform
import time
from importlib.metadata import version

import numpy as np
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.io import read
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import BFGS

from label_engines import (
    ACCURACY,
    AUXILIARY,
    GRID,
    TOLERANCES,
    SPCFw,
    as_bytes,
    checks,
    deformed,
    frame,
    labelled,
    pbe_label,
    statistics,
    write_atomic,
    xtb,
)

HERE = pathlib.Path(__file__).resolve().parent
FILES = HERE.parent / "src" / "lamella" / "datasets" / "files"
H_MASS = 2.014  # hydrogen mass in water sampling: allows 1 fs steps, leaves averages unchanged
LIF_A0 = 4.27  # Angstrom; near zero GFN1-xTB stress in the 64-atom cell (experiment: 4.03)

# ---------------------------------------------------------------- what is in each set

WATER_BOXES = [  # volume is relative to 1 g/cm3
    {"split": "train", "temperature": 300, "volume": 1.00, "gfn1_steps": 300},
    {"split": "test", "temperature": 330, "volume": 1.00, "gfn1_steps": 200},
    {"split": "train", "temperature": 350, "volume": 0.95, "gfn1_steps": 200},
]
BOX_MOLECULES, GFN2_STEPS, GFN2_SKIP, GFN2_STRIDE = 16, 60, 8, 4
CLUSTER_SIZES = (2, 3, 4, 5, 6, 7, 8, 16)
MOLECULES = "CH4 NH3 H2O HCN H2CO CH3OH H3CNH2 C2H4 HCOOH HCONH2 CH3CN".split()  # noqa: SIM905
MOLECULE_TEMPERATURES = (300, 500, 800)
LIF_BATCHES = [("train", 2000), ("train", 2001), ("test", 2004)]  # with seeds

GFN1 = "S. Grimme, C. Bannwarth, P. Shushkov, J. Chem. Theory Comput. 13, 1989 (2017), GFN1-xTB"
GFN2 = "C. Bannwarth, S. Ehlert, S. Grimme, J. Chem. Theory Comput. 15, 1652 (2019), GFN2-xTB"
PBE = (
    "J. P. Perdew, K. Burke, M. Ernzerhof, Phys. Rev. Lett. 77, 3865 (1996), PBE; "
    "F. Weigend, R. Ahlrichs, Phys. Chem. Chem. Phys. 7, 3297 (2005), def2-SVP"
)
PYSCF = "Q. Sun et al., J. Chem. Phys. 153, 024109 (2020), PySCF"
SETS = {
    "water_gfn2": {
        "method": "GFN2-xTB",
        "engine": "tblite",
        "reference": GFN2,
        "description": f"Periodic liquid-water boxes ({BOX_MOLECULES} molecules, 0.95-1.00 times the "
        "volume at 1 g/cm3, 300-350 K) and water clusters (1-8 and 16 molecules).",
    },
    "molecules_gfn2": {
        "method": "GFN2-xTB",
        "engine": "tblite",
        "reference": GFN2,
        "description": "Small organic molecules (C, H, N, O; up to three heavy atoms) from GFN2-xTB "
        "molecular dynamics at 300, 500 and 800 K.",
    },
    "molecules_pbe": {
        "method": "PBE/def2-SVP, density fitting",
        "engine": "pyscf",
        "reference": f"{PBE}; {PYSCF}",
        "description": "The frames of molecules_gfn2, in the same order, labelled with PBE/def2-SVP.",
    },
    "lif_gfn1": {
        "method": "GFN1-xTB, Gamma point",
        "engine": "tblite",
        "reference": GFN1,
        "description": "Rock-salt LiF, 64-atom supercells, strained (volume +-6 %, shear) and rattled.",
    },
}


def unit_list(name):
    """The units of a set: a list of dicts of plain values, seeds included."""
    if name == "water_gfn2":
        boxes = [dict(kind="box", seed=100 + i, trajectory=i, **b) for i, b in enumerate(WATER_BOXES)]
        stretch = [
            {"kind": "monomer", "seed": 200, "split": "train", "frames": 40},
            {"kind": "monomer", "seed": 201, "split": "test", "frames": 10},
        ]
        clusters = [
            {"kind": "cluster", "seed": 300 + 10 * n + k, "size": n, "split": split, "temperatures": temps, "frames": frames}
            for n in CLUSTER_SIZES
            for k, (split, temps, frames) in enumerate([("train", (250, 400), 10), ("test", (300,), 5)])
        ]
        return boxes + stretch + clusters
    if name.startswith("molecules"):
        return [
            {
                "kind": "molecule",
                "seed": 1000 + 10 * i + k,
                "molecule": m,
                "split": split,
                "frames": frames,
                "temperatures": MOLECULE_TEMPERATURES,
            }
            for i, m in enumerate(MOLECULES)
            for k, (split, frames) in enumerate([("train", 5), ("test", 2)])
        ]
    return [{"kind": "lif", "seed": seed, "split": split, "frames": 16} for split, seed in LIF_BATCHES]


# ---------------------------------------------------------------- frames and dynamics


def dynamics(atoms, calc, temperature, rng, timestep=1.0, friction=0.02, fresh=True):
    """Langevin dynamics (timestep in fs, friction in 1/fs), velocities drawn anew if `fresh`."""
    atoms.calc = calc
    if fresh:
        MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    return Langevin(
        atoms, timestep * units.fs, temperature_K=temperature, fixcm=False, friction=friction / units.fs, rng=rng
    )


def water_lattice(n, volume, rng, periodic):
    """n randomly oriented water molecules on a cubic grid; volume relative to 1 g/cm3."""
    length = (n * 29.915 * volume) ** (1 / 3)  # 29.915 A3 per molecule at 1 g/cm3
    k = int(np.ceil(n ** (1 / 3) - 1e-9))
    cells = np.array([(i // k // k, (i // k) % k, i % k) for i in range(k**3)])
    out = Atoms(cell=[length] * 3 if periodic else None, pbc=periodic)
    for c in cells[np.sort(rng.permutation(k**3)[:n])]:
        mol = molecule("H2O")
        mol.rotate(rng.uniform(0, 360), rng.normal(size=3))
        mol.translate((c + 0.5) * length / k - mol.positions[0])
        out += mol
    masses = out.get_masses()
    masses[out.numbers == 1] = H_MASS
    out.set_masses(masses)
    return out


def random_strain(rng, size):
    """A symmetric deformation gradient with entries of standard deviation `size`."""
    e = rng.normal(scale=size, size=(3, 3))
    return np.eye(3) + 0.5 * (e + e.T)


def pre_equilibrate(atoms, temperature, rng, steps):
    """SPC/Fw dynamics: a short gentle start from the grid, then `steps` of 1 fs."""
    dynamics(atoms, SPCFw(), temperature, rng, timestep=0.2, friction=0.2).run(500)
    dynamics(atoms, SPCFw(), temperature, rng).run(steps)


def box_unit(unit):
    """SPC/Fw (10 ps), then GFN1 dynamics, then GFN2 dynamics; labels always GFN2."""
    rng = np.random.RandomState(unit["seed"])
    t, info = unit["temperature"], {"split": unit["split"], "trajectory": unit["trajectory"]}
    atoms = water_lattice(BOX_MOLECULES, unit["volume"], rng, periodic=True)
    pre_equilibrate(atoms, t, rng, 10000)
    md, early = dynamics(atoms, xtb("GFN1"), t, rng), []
    md.run(unit["gfn1_steps"] // 2)
    for _ in range(5):
        md.run(unit["gfn1_steps"] // 10)
        early.append(atoms.copy())
    frames = [labelled(a, "GFN2", config_type="box_md_gfn1", **info) for a in early]
    md, late = dynamics(atoms, xtb("GFN2"), t, rng, fresh=False), []
    md.run(GFN2_SKIP)
    while md.nsteps < GFN2_STEPS:
        md.run(GFN2_STRIDE)
        late.append(labelled(atoms, config_type="box_md_gfn2", **info))
    for a in [early[0], late[0], late[-1]]:
        b = deformed(a, random_strain(rng, 0.02))
        b.positions += rng.normal(scale=0.05, size=b.positions.shape)
        frames.append(labelled(b, "GFN2", config_type="box_perturbed", **info))
    return frames + late


def monomer_unit(unit):
    """Monomers with independent O-H lengths 0.80-1.35 A and angles 75-150 degrees."""
    rng, frames = np.random.RandomState(unit["seed"]), []
    for _ in range(unit["frames"]):
        r1, r2 = rng.uniform(0.80, 1.35, 2)
        angle = np.radians(rng.uniform(75, 150))
        x = [[0, 0, 0], [r1, 0, 0], [r2 * np.cos(angle), r2 * np.sin(angle), 0]]
        a = Atoms("OH2", x)
        a.rotate(rng.uniform(0, 360), rng.normal(size=3))
        frames.append(labelled(a, "GFN2", split=unit["split"], config_type="monomer_stretched"))
    return frames


def cluster_unit(unit):
    """SPC/Fw start, then GFN2 dynamics: 0.5 ps discarded, then one frame every 50 fs."""
    rng, frames = np.random.RandomState(unit["seed"]), []
    atoms = water_lattice(unit["size"], 1.1, rng, periodic=False)
    pre_equilibrate(atoms, 150, rng, 1000)
    for t in unit["temperatures"]:
        md = dynamics(atoms, xtb("GFN2"), t, rng)
        md.run(500)
        for _ in range(unit["frames"]):
            md.run(50)
            a = atoms.copy()
            a.positions -= a.positions.mean(axis=0)
            frames.append(labelled(a, "GFN2", split=unit["split"], config_type=f"cluster_{unit['size']}"))
    return frames


def molecule_unit(unit):
    """GFN2 dynamics of one molecule: 0.3 ps discarded per temperature, one frame every 60 fs."""
    rng, frames, name = np.random.RandomState(unit["seed"]), [], unit["molecule"]
    if name == "HCONH2":  # planar formamide, relaxed below; the others come from the G2 set
        atoms = Atoms(
            "OCNH3",
            [[1.19, 0.24, 0], [0.16, -0.39, 0], [-1.07, 0.16, 0], [0.13, -1.49, 0], [-1.17, 1.16, 0], [-1.89, -0.42, 0]],
        )
    else:
        atoms = molecule(name)
    atoms.calc = xtb("GFN2")
    BFGS(atoms, logfile=None).run(fmax=0.02, steps=200)
    for t in unit["temperatures"]:
        md = dynamics(atoms, xtb("GFN2"), t, rng, timestep=0.5)
        md.run(600)
        for _ in range(unit["frames"]):
            md.run(120)
            a = atoms.copy()
            a.positions -= a.positions.mean(axis=0)
            frames.append(labelled(a, "GFN2", split=unit["split"], config_type=name, temperature=t))
    return frames


def lif_unit(unit):
    """Volume 0.94-1.06, random strain of 1 %, Gaussian displacements of 0.02-0.15 A."""
    rng, frames = np.random.RandomState(unit["seed"]), []
    for _ in range(unit["frames"]):
        f = random_strain(rng, 0.01)
        f *= (rng.uniform(0.94, 1.06) / np.linalg.det(f)) ** (1 / 3)
        a = deformed(bulk("LiF", "rocksalt", a=LIF_A0, cubic=True) * (2, 2, 2), f)
        a.positions += rng.normal(scale=rng.uniform(0.02, 0.15), size=a.positions.shape)
        frames.append(labelled(a, "GFN1", split=unit["split"], config_type="rattled_strained"))
    return frames


# ---------------------------------------------------------------- running, files, checks


def unit_file(name, unit, work):
    key = hashlib.sha256(json.dumps([name, unit], sort_keys=True).encode()).hexdigest()[:16]
    return work / f"{name}-{key}.extxyz.gz"


def run_unit(name, unit, work):
    """The frames of one unit, from the work folder if they are there."""
    path = unit_file(name, unit, work)
    if path.exists():
        return read(path, ":", format="extxyz")
    start = time.time()
    if name == "molecules_pbe":
        frames = [frame(a, *pbe_label(a), **a.info) for a in run_unit("molecules_gfn2", unit, work)]
    else:
        frames = globals()[unit["kind"] + "_unit"](unit)
    write_atomic(path, as_bytes(frames))
    write_atomic(path.with_suffix(".seconds"), str(round(time.time() - start, 1)).encode())
    print(f"{name} {unit}: {len(frames)} frames, {time.time() - start:.0f} s", flush=True)
    return read(path, ":", format="extxyz")


def make_card(name, frames, seconds):
    parts = {s: [a for a in frames if a.info["split"] == s] for s in ("train", "test")}
    versions = {p: version(p) for p in ("tblite", "pyscf", "ase", "numpy", "scipy")}
    settings = {
        "tblite_accuracy": ACCURACY,
        "box_molecules": BOX_MOLECULES,
        "box_gfn2_steps": GFN2_STEPS,
        "box_gfn2_stride": GFN2_STRIDE,
        "hydrogen_mass": H_MASS,
    }
    if name == "molecules_pbe":
        settings = dict(
            grid=f"{GRID[0]} radial x {GRID[1]} angular points, pruned",
            auxiliary_basis=AUXILIARY,
            grid_response=True,
            **TOLERANCES,
        )
    elif name != "water_gfn2":
        settings = {"tblite_accuracy": ACCURACY} | ({"lattice_constant": LIF_A0} if name == "lif_gfn1" else {})
    return dict(
        name=name,
        **{k: SETS[name][k] for k in ("description", "method", "engine", "reference")},
        engine_version=versions[SETS[name]["engine"]],
        versions=versions | {"python": platform.python_version()},
        elements=sorted({s for a in frames for s in a.get_chemical_symbols()}),
        frames={s: len(p) for s, p in parts.items()},
        units={
            "energy": "eV",
            "length": "Angstrom",
            "forces": "eV/Angstrom",
            "stress": "eV/Angstrom^3, tensile positive, Voigt xx yy zz yz xz xy",
        },
        licence="The geometries and labels were computed by this project's scripts/label_datasets.py with "
        "open-source programs; no third-party data set is included; same licence as the package.",
        seeds=[u["seed"] for u in unit_list(name)],
        settings=settings,
        parameters=unit_list(name),
        statistics={s: statistics(p) for s, p in parts.items()},
        checks=checks(name, SETS[name]["method"][:4], frames),
        wall_seconds=round(seconds),
    )


def finish(name, work, out):
    """Join the units of a set, write its file and its card."""
    frames = [a for unit in unit_list(name) for a in run_unit(name, unit, work)]
    seconds = sum(float(unit_file(name, u, work).with_suffix(".seconds").read_text()) for u in unit_list(name))
    text = json.dumps(make_card(name, frames, seconds), indent=1) + "\n"
    data = as_bytes(frames)
    write_atomic(out / f"{name}.extxyz.gz", data)
    write_atomic(out / f"{name}.json", text.encode())
    print(f"{name}: {len(frames)} frames, {len(data)} bytes, {seconds:.0f} s", flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME", action="append", choices=list(SETS), help="this set (repeatable)")
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path, default=FILES, help="where the files go")
    parser.add_argument(
        "--work",
        metavar="DIR",
        type=pathlib.Path,
        default=pathlib.Path("label_work"),
        help="where finished units are kept (default: label_work)",
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    args = parser.parse_args(argv)
    names = args.only or list(SETS)
    tasks = [(name, unit, args.work) for name in names for unit in unit_list(name)]
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"  # for the processes below: also for reproducibility
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        pool.starmap(run_unit, tasks, chunksize=1)
        pool.starmap(finish, [(name, args.work, args.out) for name in names], chunksize=1)


if __name__ == "__main__":
    main()
