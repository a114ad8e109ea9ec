"""What deepmd-kit 3.2.0 makes of a model section: a checkpoint with random numbers in it, and what it computes from it.

Used by ``make_golden.py`` and ``make_sweep.py``, with the Python of an environment that holds deepmd-kit, without lamella.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch


class Structure(NamedTuple):
    """Positions (n, 3) Å, cell (3, 3) Å or None, symbols, and what else the frame carries: fparam (P,), charge_spin (2,)."""

    positions: np.ndarray
    cell: np.ndarray | None
    symbols: list[str]
    inputs: dict[str, np.ndarray]


def build(params: dict, seed: int, mean: bool = False) -> tuple[torch.nn.Module, dict]:
    """The wrapper deepmd-kit would have trained, with random weights, and its model section (references resolved)."""
    from deepmd.pt.model.model import get_model
    from deepmd.pt.train.wrapper import ModelWrapper
    from deepmd.pt.utils.multi_task import preprocess_shared_params

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    if "model_dict" not in params:
        model = get_model(copy.deepcopy(params))
        randomise(model, rng, mean)
        return ModelWrapper(model, model_params=params), params
    params, links = preprocess_shared_params(copy.deepcopy(params))
    models = {task: get_model(copy.deepcopy(section)) for task, section in params["model_dict"].items()}
    for model in models.values():
        randomise(model, rng, mean)
    wrapper = ModelWrapper(models, model_params=params)
    wrapper.share_params(links, dict.fromkeys(models, 1.0), resume=True)
    for code, (task, model) in enumerate(models.items()):
        if params["model_dict"][task]["fitting_net"].get("dim_case_embd"):
            model.set_case_embd(code)
    return wrapper, params


def randomise(model: torch.nn.Module, rng: np.random.Generator, mean: bool = False) -> None:
    """Random weights; environment statistics as training writes them: one value per centre type, equal in every slot.

    A non-zero mean (``mean``) only where the energy stays independent of the order of atoms, unless that is the point.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 31)))

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_((0.25 * noise).to(parameter.dtype))
        for name, buffer in model.named_buffers():
            leaf = name.split(".")[-1]
            if leaf == "stddev":
                scale = 0.12 + 0.1 * rand(buffer.shape[0], 1, 2)
                buffer.copy_(scale[..., [0, 1, 1, 1]].expand_as(buffer).to(buffer.dtype))
            elif leaf == "mean" and mean:
                buffer[..., :1] = (0.05 + 0.1 * rand(buffer.shape[0], 1, 1)).expand_as(buffer[..., :1]).to(buffer.dtype)
            elif leaf == "out_bias":
                buffer.copy_(-3.0 - rand(*buffer.shape))
            elif leaf in ("fparam_avg", "fparam_inv_std"):
                buffer.copy_((0.5 + rand(*buffer.shape)).to(buffer.dtype))


def numbers(path: Path, structures: dict[str, Structure], head: str | None = None) -> dict[str, np.ndarray]:
    """``[HEAD/]FRAME/QUANTITY`` -> what deepmd-kit computes from the file.

    Uncompiled: deepmd-kit 3.2.0 cannot script a DPA-3 of update_style res_avg or res_incr.
    """
    from deepmd.infer.deep_pot import DeepPot

    potential = DeepPot(str(path), head=head, no_jit=True) if head else DeepPot(str(path), no_jit=True)
    type_map = potential.get_type_map()
    arrays = {}
    for frame, (positions, cell, symbols, inputs) in structures.items():
        start = f"{head}/{frame}" if head else frame
        types = np.array([type_map.index(symbol) for symbol in symbols])
        box = None if cell is None else cell[None]
        given = {name: value[None] for name, value in inputs.items()}
        energy, forces, virial, atomic, _ = potential.eval(positions[None], box, types, atomic=True, **given)
        descriptor = potential.eval_descriptor(positions[None], box, types, **given)
        arrays |= {f"{start}/{name}": value for name, value in inputs.items()}
        arrays |= {
            f"{start}/positions": positions,
            f"{start}/symbols": np.array(symbols),
            f"{start}/energy": np.float64(energy.reshape(())),
            f"{start}/forces": forces.reshape(-1, 3),
            f"{start}/atomic_energy": atomic.reshape(-1),
            f"{start}/descriptor": descriptor.reshape(len(symbols), -1),
        }
        if cell is not None:
            arrays |= {f"{start}/cell": cell, f"{start}/virial": virial.reshape(3, 3)}
    return arrays


def write(
    path: Path, params: dict, structures: dict[str, Structure], seed: int, mean: bool = False
) -> dict[str, np.ndarray]:
    """Write ``path`` (.pt, with the .npz beside it) and return the numbers."""
    wrapper, params = build(params, seed, mean)
    torch.save({"model": wrapper.state_dict()}, path)
    tasks = params.get("model_dict", {None: params})
    arrays = {}
    for task in tasks:
        arrays |= numbers(path, structures, task)
    np.savez_compressed(path.with_suffix(".npz"), **arrays)
    return arrays


def freeze(path: Path, head: str | None = None) -> None:
    """``dp freeze`` to the .pth beside it, without the program inside."""
    frozen = path.with_suffix(".pth")
    command = [str(Path(sys.executable).with_name("dp")), "--pt", "freeze", "-c", str(path), "-o", str(frozen)]
    subprocess.run([*command, *(["--head", head] if head else [])], check=True, capture_output=True)
    strip_code(frozen)


def strip_code(path: Path) -> None:
    """Leave out of a frozen model the program it carries, which is deepmd-kit's (LGPL) and which lamella never reads."""
    with zipfile.ZipFile(path) as archive:
        kept = {
            name: archive.read(name) for name in archive.namelist() if name.partition("/")[2].partition("/")[0] != "code"
        }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in kept.items():
            archive.writestr(zipfile.ZipInfo(name), content)


def neighbors(positions: np.ndarray, cell: np.ndarray | None, cutoff: float) -> np.ndarray:
    """(n, n) number of times atom j (images included) is a neighbour of atom i, counted one by one."""
    images = np.zeros((1, 3))
    if cell is not None:
        reach = np.ceil(cutoff * np.linalg.norm(np.linalg.inv(cell), axis=0)).astype(int) + 1
        images = np.stack(np.meshgrid(*[np.arange(-m, m + 1) for m in reach]), -1).reshape(-1, 3) @ cell
    vectors = positions[None, :, None] + images - positions[:, None, None]
    distance = np.linalg.norm(vectors, axis=-1)
    return ((distance > 1e-9) & (distance <= cutoff)).sum(axis=2)


def most_neighbors(structures: dict[str, Structure], cutoff: float) -> int:
    """Largest number of neighbours any atom has."""
    return max(int(neighbors(s.positions, s.cell, cutoff).sum(axis=1).max()) for s in structures.values())


def most_by_element(structures: dict[str, Structure], cutoff: float, type_map: list[str]) -> list[int]:
    """Largest number of neighbours of each element that any atom has."""
    most = np.zeros(len(type_map), dtype=int)
    for s in structures.values():
        count = neighbors(s.positions, s.cell, cutoff)
        for k, symbol in enumerate(type_map):
            mine = [j for j, other in enumerate(s.symbols) if other == symbol]
            most[k] = max(most[k], int(count[:, mine].sum(axis=1).max(initial=0)))
    return most.tolist()
