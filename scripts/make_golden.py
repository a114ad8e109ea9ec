"""Make the small golden models of ``tests/golden``: random DPA-3 models and what deepmd-kit computes from them.

Run with the Python of an environment that holds deepmd-kit 3.2.0 and nothing of lamella::

    python scripts/make_golden.py OUT [NAME ...]

For every case a training checkpoint ``NAME.pt`` and ``NAME.npz`` (positions, cell, symbols, energy, forces, virial, atomic
energies, descriptor of four frames) are written; ``frozen`` is also frozen with ``dp --pt freeze`` to ``frozen.pth``, from
which the program inside (deepmd-kit's) is then left out. Weights, environment scales and energy biases are random, so
nothing agrees by accident; no frame has more neighbours than slots.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import zipfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

FRAMES = dict[str, tuple[np.ndarray, "np.ndarray | None", list[str]]]

REPFLOW = {
    "n_dim": 6,
    "e_dim": 6,
    "a_dim": 4,
    "nlayers": 2,
    "e_rcut": 4.0,
    "e_rcut_smth": 3.4,
    "e_sel": 64,
    "a_rcut": 3.0,
    "a_rcut_smth": 2.5,
    "a_sel": 32,
    "axis_neuron": 3,
    "a_compress_rate": 1,
    "a_compress_e_rate": 2,
    "a_compress_use_split": True,
    "smooth_edge_update": True,
    "edge_init_use_dist": True,
    "use_exp_switch": True,
}
DESCRIPTOR = {"type": "dpa3", "activation_function": "silut:10.0", "precision": "float64", "seed": 1}
FITTING = {"type": "ener", "neuron": [6, 6], "activation_function": "silut:10.0", "precision": "float64", "seed": 3}

CASES: dict[str, dict] = {
    "order1": {"repflow": {"update_angle": False}},
    "polynomial": {"repflow": {"use_exp_switch": False}},
    "inverse_edges": {"repflow": {"edge_init_use_dist": False}},
    "uncompressed": {"repflow": {"a_compress_rate": 0}},
    "compress_linear": {"repflow": {"a_compress_use_split": False}},
    "compress_rate2": {"repflow": {"a_compress_rate": 2, "a_compress_e_rate": 3}},
    "messages2": {"repflow": {"n_multi_edge_message": 2}},
    "res_avg": {"repflow": {"update_style": "res_avg"}},
    "res_incr": {"repflow": {"update_style": "res_incr"}},
    "nonsmooth": {"repflow": {"smooth_edge_update": False}},
    "concat": {"descriptor": {"concat_output_tebd": True, "use_tebd_bias": True}},
    "silu_tanh": {"descriptor": {"activation_function": "silu"}, "fitting": {"activation_function": "tanh"}},
    "tanh_gelu": {"descriptor": {"activation_function": "tanh"}, "fitting": {"activation_function": "gelu"}},
    "silut3": {"descriptor": {"activation_function": "custom_silu:3.0"}, "fitting": {"activation_function": "silut:0.5"}},
    "relu_softplus": {"descriptor": {"activation_function": "softplus"}, "fitting": {"activation_function": "sigmoid"}},
    "identity": {"type_map": ["H", "C", "N", "O", "Si", "Cu"]},
    "identity2": {"type_map": ["Cs", "Pb", "I"], "descriptor": {"use_tebd_bias": True}},
    "wide_head": {"fitting": {"neuron": [6, 12, 24], "resnet_dt": True}},
    "no_timestep": {"fitting": {"neuron": [6, 12, 10], "resnet_dt": False}},
    "statistics": {"repflow": {"fix_stat_std": 0.0}},
    "one_layer": {"repflow": {"nlayers": 1, "axis_neuron": 1}},
    "reference_defaults": {
        "repflow": {
            "a_compress_rate": 0,
            "a_compress_e_rate": 1,
            "a_compress_use_split": False,
            "smooth_edge_update": False,
            "edge_init_use_dist": False,
            "use_exp_switch": False,
        },
        "descriptor": {"activation_function": "silu"},
        "fitting": {"activation_function": "tanh"},
    },
    "dynamic_mixed": {
        "repflow": {
            "use_dynamic_sel": True,
            "sel_reduce_factor": 4.0,
            "edge_init_use_dist": False,
            "a_compress_use_split": False,
            "n_multi_edge_message": 2,
        },
        "descriptor": {"activation_function": "silut:3.0", "concat_output_tebd": True},
    },
    "float32": {"descriptor": {"precision": "float32"}, "fitting": {"precision": "float32"}},
    "frozen": {"repflow": {"nlayers": 1, "use_dynamic_sel": True}},
}


def frames(type_map: list[str], rng: np.random.Generator) -> FRAMES:
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


def most_neighbors(positions: np.ndarray, cell: np.ndarray | None, cutoff: float) -> int:
    """Largest number of neighbours any atom has, counted one by one."""
    images = np.zeros((1, 3)) if cell is None else np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3), -1).reshape(-1, 3) @ cell
    vectors = positions[None, :, None] + images - positions[:, None, None]
    distance = np.linalg.norm(vectors, axis=-1)
    return int(((distance > 1e-9) & (distance < cutoff)).sum(axis=(1, 2)).max())


def randomise(model: torch.nn.Module, rng: np.random.Generator) -> None:
    """Random weights; environment scales as training writes them: one value per centre type, equal in every slot."""
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 31)))
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_((0.25 * noise).to(parameter.dtype))
        for name, buffer in model.named_buffers():
            leaf = name.split(".")[-1]
            if leaf == "stddev":
                scale = 0.12 + 0.1 * torch.rand(buffer.shape[0], 1, 2, generator=generator, dtype=torch.float64)
                buffer.copy_(scale[..., [0, 1, 1, 1]].expand_as(buffer).to(buffer.dtype))
            elif leaf == "out_bias":
                buffer.copy_(-3.0 - torch.rand(buffer.shape, generator=generator, dtype=torch.float64))


def make(name: str, case: dict, out: Path, seed: int) -> None:
    """One checkpoint and what deepmd-kit says of it."""
    from deepmd.infer.deep_pot import DeepPot
    from deepmd.pt.model.model import get_model
    from deepmd.pt.train.wrapper import ModelWrapper

    repflow = {**REPFLOW, **case.get("repflow", {})}
    params = {
        "type_map": case.get("type_map", ["O", "H"]),
        "descriptor": {"repflow": repflow, **DESCRIPTOR, **case.get("descriptor", {})},
        "fitting_net": {**FITTING, **case.get("fitting", {})},
    }
    torch.manual_seed(seed)
    model = get_model(copy.deepcopy(params))
    randomise(model, np.random.default_rng(seed))
    path = out / f"{name}.pt"
    torch.save({"model": ModelWrapper(model, model_params=params).state_dict()}, path)
    # uncompiled: deepmd-kit 3.2.0 cannot script a DPA-3 of update_style res_avg or res_incr
    potential, arrays = DeepPot(str(path), no_jit=True), {}
    for frame, (positions, cell, symbols) in frames(params["type_map"], np.random.default_rng(7)).items():
        assert most_neighbors(positions, cell, repflow["e_rcut"]) <= repflow["e_sel"], (name, frame)
        assert most_neighbors(positions, cell, repflow["a_rcut"]) <= repflow["a_sel"], (name, frame)
        types = np.array([params["type_map"].index(symbol) for symbol in symbols])
        box = None if cell is None else cell[None]
        energy, forces, virial, atomic, _ = potential.eval(positions[None], box, types, atomic=True)
        arrays |= {
            f"{frame}/positions": positions,
            f"{frame}/symbols": np.array(symbols),
            f"{frame}/energy": np.float64(energy.reshape(())),
            f"{frame}/forces": forces.reshape(-1, 3),
            f"{frame}/atomic_energy": atomic.reshape(-1),
            f"{frame}/descriptor": potential.eval_descriptor(positions[None], box, types).reshape(len(symbols), -1),
        }
        if cell is not None:
            arrays |= {f"{frame}/cell": cell, f"{frame}/virial": virial.reshape(3, 3)}
    np.savez_compressed(out / f"{name}.npz", **arrays)
    if name == "frozen":
        dp = Path(sys.executable).with_name("dp")
        subprocess.run([dp, "--pt", "freeze", "-c", path, "-o", out / "frozen.pth"], check=True)
        strip_code(out / "frozen.pth")
    print(f"{name}: {path.stat().st_size / 1e3:.0f} kB, E(periodic) = {float(arrays['periodic/energy']):.6f} eV", flush=True)


def strip_code(path: Path) -> None:
    """Leave out of a frozen model the program it carries, which is deepmd-kit's (LGPL) and which lamella never reads."""
    with zipfile.ZipFile(path) as archive:
        kept = {
            name: archive.read(name) for name in archive.namelist() if name.partition("/")[2].partition("/")[0] != "code"
        }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in kept.items():
            archive.writestr(zipfile.ZipInfo(name), content)


def main() -> None:
    """Make the named cases, or all of them."""
    out, names = Path(sys.argv[1]), sys.argv[2:] or list(CASES)
    out.mkdir(parents=True, exist_ok=True)
    for seed, (name, case) in enumerate(CASES.items(), start=200):
        if name in names:
            make(name, case, out, seed)


if __name__ == "__main__":
    main()
