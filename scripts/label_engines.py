"""Engines and labels for label_datasets.py: GFN-xTB (tblite), PBE (PySCF), SPC/Fw starts, checks."""

import collections
import gzip
import io
import os

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

ACCURACY = 0.1  # tblite's accuracy multiplier: ten times tighter than its default
GRID = (60, 434)  # radial, angular points per atom, pruned (PySCF default pruning)
AUXILIARY = "def2-universal-jfit"  # density-fitting basis
TOLERANCES = {"conv_tol": 1e-9, "conv_tol_grad": 2e-6}  # Hartree


def xtb(method):
    from tblite.ase import TBLite

    return TBLite(method=f"{method}-xTB", accuracy=ACCURACY, verbosity=0)


class SPCFw(Calculator):
    """Flexible SPC/Fw water (Wu, Tepper, Voth 2006), damped shifted Coulomb, O H H order.

    Used only to prepare starting structures; no shipped label comes from it.
    """

    implemented_properties = ("energy", "forces")
    kcal = units.kcal / units.mol
    alpha = 0.2

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x, n = atoms.positions, len(atoms)
        energy, forces = self.bonded(x, np.zeros_like(x))
        d = x[:, None] - x[None]
        rc = 12.0
        if atoms.pbc.any():
            cell = atoms.cell.array
            d = d - np.rint(d @ np.linalg.inv(cell)) @ cell
            rc = 0.5 / np.linalg.norm(np.linalg.inv(cell), axis=0).max()
        mol = np.arange(n) // 3
        i, j = np.nonzero((mol[:, None] < mol[None]) & (np.einsum("abk,abk->ab", d, d) < rc * rc))
        v = d[i, j]
        r = np.linalg.norm(v, axis=1)
        e, g = self.pair(i, j, r, rc)
        f = -(g / r)[:, None] * v
        np.add.at(forces, i, f)
        np.add.at(forces, j, -f)
        self.results = {"energy": float(energy + e.sum()), "forces": forces}

    def pair(self, i, j, r, rc):
        """Pair energies and their radial derivatives."""
        from scipy.special import erfc

        a, ke = self.alpha, units.Hartree * units.Bohr
        q = np.where(np.arange(max(i.max(initial=0), j.max(initial=0)) + 1) % 3 == 0, -0.82, 0.41)
        gauss = 2 * a / np.sqrt(np.pi)
        slope = erfc(a * rc) / rc**2 + gauss * np.exp(-((a * rc) ** 2)) / rc
        qq = ke * q[i] * q[j]
        e = qq * (erfc(a * r) / r - erfc(a * rc) / rc + slope * (r - rc))
        g = qq * (-erfc(a * r) / r**2 - gauss * np.exp(-((a * r) ** 2)) / r + slope)
        oo = (i % 3 == 0) & (j % 3 == 0)
        s6, eps = np.where(oo, (3.165492 / r) ** 6, 0.0), 0.1554253 * self.kcal
        return e + 4 * eps * (s6**2 - s6), g + 4 * eps * (6 * s6 - 12 * s6**2) / r

    def bonded(self, x, forces):
        a, b = x[1::3] - x[::3], x[2::3] - x[::3]
        ra, rb = np.linalg.norm(a, axis=1)[:, None], np.linalg.norm(b, axis=1)[:, None]
        kb, ka = 1059.162 * self.kcal, 75.90 * self.kcal
        cos = np.sum(a * b, axis=1, keepdims=True) / (ra * rb)
        theta = np.arccos(cos)
        dt = theta - np.radians(113.24)
        pre = ka * dt / np.sqrt(1 - cos**2)  # minus dE/dcos
        fa = -kb * (ra - 1.012) * a / ra + pre * (b / (ra * rb) - cos * a / ra**2)
        fb = -kb * (rb - 1.012) * b / rb + pre * (a / (ra * rb) - cos * b / rb**2)
        forces[1::3] += fa
        forces[2::3] += fb
        forces[::3] -= fa + fb
        energy = 0.5 * kb * ((ra - 1.012) ** 2 + (rb - 1.012) ** 2).sum() + 0.5 * ka * (dt**2).sum()
        return energy, forces


def pbe_label(atoms, energy_only=False, grid=GRID):
    """PBE/def2-SVP energy and forces; the gradient includes the grid response, so the forces are
    the exact derivative of the energy on the moving grid and sum to zero."""
    from pyscf import dft, gto, lib

    lib.num_threads(1)
    mol = gto.M(
        atom=list(zip(atoms.get_chemical_symbols(), atoms.positions, strict=True)),
        basis="def2-svp",
        unit="Angstrom",
        verbose=0,
    )
    mf = dft.RKS(mol, xc="pbe").density_fit(auxbasis=AUXILIARY)
    mf.grids.atom_grid = grid
    mf.conv_tol, mf.conv_tol_grad = TOLERANCES["conv_tol"], TOLERANCES["conv_tol_grad"]
    energy = float(mf.kernel() * units.Hartree)
    if not mf.converged:
        raise RuntimeError(f"SCF did not converge for {atoms.get_chemical_formula()}")
    if energy_only:
        return energy
    grad = mf.nuc_grad_method()
    grad.grid_response = True
    return energy, -np.asarray(grad.kernel()) * units.Hartree / units.Bohr


def frame(atoms, energy, forces, stress=None, **info):
    """A clean Atoms with rounded positions and labels."""
    out = Atoms(atoms.symbols, np.round(atoms.positions, 8), cell=np.round(atoms.cell.array, 8), pbc=atoms.pbc)
    labels = {"energy": round(float(energy), 7), "forces": np.round(forces, 6)}
    if stress is not None:
        labels["stress"] = np.round(stress, 9)
    out.calc = SinglePointCalculator(out, **labels)
    out.info.update(info)
    return out


def labelled(atoms, method=None, **info):
    """Label `atoms` with `method`, or take what its calculator holds already (method None)."""
    if method:
        atoms = Atoms(atoms.symbols, np.round(atoms.positions, 8), cell=np.round(atoms.cell.array, 8), pbc=atoms.pbc)
        atoms.calc = xtb(method)
    stress = atoms.get_stress() if atoms.pbc.all() else None
    return frame(atoms, atoms.get_potential_energy(), atoms.get_forces(), stress, **info)


def deformed(atoms, gradient):
    """Atoms with the cell and all positions strained by `gradient`."""
    out = atoms.copy()
    out.set_cell(atoms.cell.array @ gradient, scale_atoms=True)
    return out


def as_bytes(frames):
    """gzipped extended XYZ, without a time stamp."""
    text = io.StringIO()
    write(text, frames, format="extxyz")
    return gzip.compress(text.getvalue().encode(), 9, mtime=0)


def write_atomic(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(data)
    os.replace(part, path)


def strain_check(atoms, method, delta=1e-3):
    """Stress against central differences of the energy over the six strains, eV/A^3."""
    stress, measured = atoms.get_stress(), []
    for i, j in [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]:
        energies = []
        for sign in (1, -1):
            gradient = np.eye(3)
            gradient[i, j] += 0.5 * sign * delta
            gradient[j, i] += 0.5 * sign * delta
            strained = deformed(atoms, gradient)
            strained.calc = xtb(method)
            energies.append(strained.get_potential_energy())
        measured.append((energies[0] - energies[1]) / (2 * delta) / atoms.get_volume())
    return {
        "strain": delta,
        "stress": stress.tolist(),
        "finite_difference": np.round(measured, 9).tolist(),
        "largest_difference": float(np.abs(stress - measured).max()),
    }


def force_check(atoms, energy, delta=1e-3, components=((0, 0), (1, 1))):
    """Labelled forces against central differences of the energy, eV/A."""
    measured = []
    for i, k in components:
        energies = []
        for sign in (1, -1):
            moved = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
            moved.positions[i, k] += sign * delta
            energies.append(energy(moved))
        measured.append(-(energies[0] - energies[1]) / (2 * delta))
    labels = [float(atoms.get_forces()[i, k]) for i, k in components]
    return {
        "displacement": delta,
        "forces": labels,
        "finite_difference": np.round(measured, 6).tolist(),
        "largest_difference": float(np.abs(np.subtract(labels, measured)).max()),
    }


def xtb_energy(method):
    def energy(atoms):
        atoms.calc = xtb(method)
        return atoms.get_potential_energy()

    return energy


def checks(name, method, frames):
    """Finite differences with the labelling engine, on the first suitable test frame."""
    test = [a for a in frames if a.info["split"] == "test"]
    out = {"largest_net_force": float(max(np.abs(a.get_forces().sum(axis=0)).max() for a in frames))}
    if name == "molecules_pbe":
        chosen = next(a for a in test if a.info["config_type"] == "CH3OH")
        out["forces"] = force_check(chosen, lambda a: pbe_label(a, energy_only=True))
        dense = pbe_label(chosen, grid=(99, 590))[1]
        out["largest_force_change_with_grid_99_590"] = float(np.abs(dense - chosen.get_forces()).max())
        return out
    chosen = test[0]
    out["frame"] = f"first test frame ({chosen.info['config_type']})"
    out["forces"] = force_check(chosen, xtb_energy(method))
    if chosen.pbc.all():
        out["stress"] = strain_check(chosen, method)
    return out


def statistics(frames):
    forces = np.concatenate([a.get_forces().ravel() for a in frames])
    out = {
        "frames": len(frames),
        "atoms": sum(map(len, frames)),
        "force_std": round(float(forces.std()), 4),
        "force_max": round(float(np.abs(forces).max()), 4),
    }
    groups = collections.defaultdict(list)
    for a in frames:
        groups[a.info["config_type"]].append(a.get_potential_energy() / len(a))
    out["config_types"] = {
        k: {
            "frames": len(v),
            "energy_per_atom_mean": round(float(np.mean(v)), 6),
            "energy_per_atom_std": round(float(np.std(v)), 6),
        }
        for k, v in sorted(groups.items())
    }
    periodic = [a.get_stress() for a in frames if a.pbc.all()]
    if periodic:
        out["stress_std"] = round(float(np.std(periodic)), 6)
    return out
