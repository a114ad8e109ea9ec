"""Draw models at random over all options of the four architectures, and what deepmd-kit computes from them.

Run with the Python of an environment that holds deepmd-kit 3.2.0 and nothing of lamella::

    python scripts/make_sweep.py OUT [COUNT [FIRST]]

writes COUNT cases (default 40) of every architecture, ``ARCHITECTURE_NNN.pt`` and ``.npz``, each from its own seed: the same
numbers give the same files. One in ten is multi-task, one in ten frozen too. ``scripts/compare_sweep.py OUT`` compares.
"""

from __future__ import annotations

import copy
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from deepmd_cases import Structure, freeze, write
from make_golden import count_slots, multitask

ELEMENTS = [
    "H",
    "Li",
    "C",
    "N",
    "O",
    "F",
    "Na",
    "Al",
    "Si",
    "S",
    "Cl",
    "Ti",
    "Fe",
    "Cu",
    "Zn",
    "Zr",
    "Ag",
    "I",
    "Cs",
    "W",
    "Pb",
    "U",
]
ACTIVATIONS = [
    "tanh",
    "gelu",
    "gelu_tf",
    "silu",
    "softplus",
    "sigmoid",
    "relu",
    "relu6",
    "linear",
    "silut",
    "silut:1.5",
    "custom_silu:3.0",
]
SMOOTH = ["tanh", "tanh", "gelu", "silu", "softplus", "sigmoid", "silut:2.0", "relu"]


class Draw:
    """Random choices from one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def of(self, options: list) -> Any:
        """One of them."""
        return options[int(self.rng.integers(len(options)))]

    def chance(self, p: float = 0.5) -> bool:
        """True in a share p of cases."""
        return bool(self.rng.random() < p)

    def between(self, low: float, high: float) -> float:
        """A number with two digits."""
        return round(float(self.rng.uniform(low, high)), 2)

    def some(self, options: dict[str, Any], p: float = 0.75) -> dict[str, Any]:
        """Most of the keys; the rest are left to the default of deepmd-kit."""
        return {key: value for key, value in options.items() if self.chance(p)}

    def widths(self) -> list[int]:
        """Hidden layers: doubling, equal and unrelated widths."""
        first = int(self.rng.integers(2, 6))
        out = [first]
        for _ in range(int(self.rng.integers(0, 3))):
            out.append(self.of([out[-1], 2 * out[-1], out[-1] + 1]))
        return out

    def cutoffs(self, low: float, high: float) -> tuple[float, float]:
        """Cutoff and where the switch starts."""
        cutoff = self.between(low, high)
        return cutoff, round(cutoff * self.between(0.1, 0.9), 3)

    def pairs(self, n: int) -> list[list[int]]:
        """Excluded pairs, usually none."""
        if not self.chance(0.35):
            return []
        return [[int(v) for v in self.rng.integers(0, n, 2)] for _ in range(self.of([1, 2]))]


def structures(draw: Draw, type_map: list[str]) -> dict[str, Structure]:
    """Four random frames: periodic, a cell smaller than the cutoff, a cluster, and a dimer with an atom far away."""
    rng = draw.rng
    symbols = [[draw.of(type_map) for _ in range(n)] for n in (9, 2, 7, 3)]
    length = rng.uniform(4.5, 6.0, 3)
    tilt = np.diag(length) + np.tril(rng.uniform(-1, 1, (3, 3)), -1)
    small = np.diag(rng.uniform(2.2, 3.4, 3)) + rng.uniform(-0.4, 0.4, (3, 3))
    out = {
        "periodic": (apart(rng, 9, tilt), tilt, symbols[0]),
        "triclinic_small": (apart(rng, 2, small), small, symbols[1]),
        "cluster": (apart(rng, 7, None), None, symbols[2]),
        "isolated": (np.array([[0.0, 0, 0], [1.05, 0.2, 0], [40.0, 0, 3.0]]), None, symbols[3]),
    }
    return {name: Structure(positions, cell, list(names), {}) for name, (positions, cell, names) in out.items()}


def apart(rng: np.random.Generator, n: int, cell: np.ndarray | None) -> np.ndarray:
    """Random positions (n, 3) at least 0.9 Å apart (nearest images), some outside the cell."""
    images = np.zeros((1, 3)) if cell is None else np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3), -1).reshape(-1, 3) @ cell
    points: list[np.ndarray] = []
    while len(points) < n:
        point = rng.uniform(-2.2, 2.2, 3) if cell is None else rng.uniform(-0.3, 1.3, 3) @ cell
        away = [np.linalg.norm(point - other + images, axis=1).min() for other in points]
        inside = (
            [np.linalg.norm(point - other - np.round((point - other) @ np.linalg.inv(cell)) @ cell) for other in points]
            if cell is not None
            else []
        )
        if min([*away, *inside], default=9.0) > 0.9:
            points.append(point)
    return np.array(points)


def se_a(draw: Draw, n: int) -> tuple[dict, bool]:
    """A descriptor section of DeepPot-SE, and whether its environment mean may be non-zero."""
    rcut, start = draw.cutoffs(2.5, 5.0)
    neuron = draw.widths()
    options = {
        "activation_function": draw.of(ACTIVATIONS),
        "type_one_side": draw.chance(),
        "resnet_dt": draw.chance(),
        "env_protection": draw.of([0.0, 0.0, 0.01, 0.3]),
        "exclude_types": draw.pairs(n),
        "set_davg_zero": draw.chance(0.3),
    }
    section = {
        "type": "se_e2_a",
        "rcut": rcut,
        "rcut_smth": start,
        "neuron": neuron,
        "axis_neuron": draw.of([1, 2, neuron[-1]]),
    }
    section |= draw.some(options)
    return section, not section.get("set_davg_zero", False)


def dpa1(draw: Draw, n: int) -> tuple[dict, bool]:
    """A descriptor section of DPA-1."""
    rcut, start = draw.cutoffs(2.5, 5.0)
    neuron = draw.widths()
    kind = draw.of(["dpa1", "dpa1", "se_atten", "se_atten_v2"])
    options = {
        "activation_function": draw.of(ACTIVATIONS),
        "type_one_side": draw.chance(),
        "resnet_dt": draw.chance(),
        "attn_dotr": draw.chance(0.7),
        "normalize": draw.chance(0.7),
        "temperature": draw.of([None, 1.0, 0.4, 2.5]),
        "scaling_factor": draw.of([1.0, 2.0, 0.3]),
        "concat_output_tebd": draw.chance(),
        "use_econf_tebd": draw.chance(0.3),
        "use_tebd_bias": draw.chance(0.3),
        "ln_eps": draw.of([None, 1e-5, 1e-2]),
        "env_protection": draw.of([0.0, 0.0, 0.01, 0.3]),
        "exclude_types": draw.pairs(n),
        "trainable_ln": draw.chance(0.8),
    }
    section = {
        "type": kind,
        "rcut": rcut,
        "rcut_smth": start,
        "neuron": neuron,
        "axis_neuron": draw.of([1, 2, neuron[-1]]),
        "tebd_dim": draw.of([2, 3, n, 2 * n]),
        "attn": draw.of([3, 6]),
        "attn_layer": draw.of([0, 0, 1, 2, 3]),
        **draw.some(options),
    }
    strip = kind == "se_atten_v2"
    smooth = True
    if kind != "se_atten_v2":
        strip, smooth = draw.chance(), draw.chance(0.6)
        section |= {"tebd_input_mode": "strip"} if draw.chance() and strip else {"stripped_type_embedding": strip}
        section["smooth_type_embedding"] = smooth
    mean = strip and smooth and draw.chance(0.7)
    section["set_davg_zero"] = not mean
    if draw.chance(0.3):
        section["lmax"] = draw.of([1, 2, 3, 4])
    return section, mean


def dpa2(draw: Draw, n: int) -> tuple[dict, bool]:
    """A descriptor section of DPA-2."""
    rcut, start = draw.cutoffs(3.6, 5.0)
    near, near_start = draw.cutoffs(2.2, 3.4)
    three, three_start = draw.cutoffs(2.2, 3.4)
    neuron, smooth, strip = draw.widths(), draw.chance(0.75), draw.chance()
    mean = strip and smooth and draw.chance()
    repinit = {
        "rcut": rcut,
        "rcut_smth": start,
        "neuron": neuron,
        "axis_neuron": draw.of([1, 2, neuron[-1]]),
        "tebd_dim": draw.of([2, 3, n]),
        "tebd_input_mode": "strip" if strip else "concat",
        "set_davg_zero": not mean,
        **draw.some({"activation_function": draw.of(SMOOTH), "type_one_side": draw.chance(), "resnet_dt": draw.chance()}),
    }
    if draw.chance(0.6):
        repinit |= {
            "use_three_body": True,
            "three_body_rcut": three,
            "three_body_rcut_smth": three_start,
            "three_body_neuron": draw.widths(),
        }
    terms = ("g1_has_conv", "g1_has_drrd", "g1_has_grrg", "g1_has_attn", "g2_has_g1g1", "g2_has_attn")
    repformer = {
        "rcut": near,
        "rcut_smth": near_start,
        "nlayers": draw.of([1, 2, 3]),
        "g1_dim": draw.of([5, 8]),
        "g2_dim": draw.of([4, 6]),
        "axis_neuron": draw.of([1, 2, 4]),
        "attn1_hidden": draw.of([2, 5]),
        "attn1_nhead": draw.of([1, 3]),
        "attn2_hidden": draw.of([2, 4]),
        "attn2_nhead": draw.of([1, 2]),
        **draw.some({f"update_{term}": draw.chance(0.6) for term in terms}),
        **draw.some(
            {
                key: draw.chance()
                for key in ("use_sqrt_nnei", "g1_out_conv", "g1_out_mlp", "update_h2", "attn2_has_gate", "direct_dist")
            }
        ),
        **draw.some({"activation_function": draw.of(SMOOTH), "ln_eps": draw.of([None, 1e-3])}),
        "update_style": draw.of(["res_avg", "res_incr", "res_residual"]),
        "update_residual_init": draw.of(["norm", "const"]),
        "update_residual": draw.of([0.001, 0.1]),
        "set_davg_zero": draw.chance(0.7),
    }
    if not (repformer.get("update_g1_has_drrd", True) or repformer.get("update_g1_has_grrg", True)):
        repformer["update_g1_has_grrg"] = True  # deepmd-kit's linear1 needs an input
    options = {
        "concat_output_tebd": draw.chance(),
        "env_protection": draw.of([0.0, 0.0, 0.2]),
        "exclude_types": draw.pairs(n),
        "add_tebd_to_repinit_out": draw.chance(),
        "use_econf_tebd": draw.chance(0.3),
        "use_tebd_bias": draw.chance(0.3),
    }
    return {"type": "dpa2", "repinit": repinit, "repformer": repformer, "smooth": smooth, **draw.some(options)}, mean


def dpa3(draw: Draw, n: int) -> tuple[dict, bool]:
    """A descriptor section of DPA-3."""
    rcut, start = draw.cutoffs(3.2, 4.5)
    near, near_start = draw.cutoffs(2.0, 3.2)
    rate = draw.of([0, 1, 2, 4])
    smooth = draw.chance(0.7)
    exponential = draw.chance()
    repflow = {
        "n_dim": draw.of([4, 6, n, 2 * n]),
        "e_dim": draw.of([5, 8]),
        "a_dim": 4 * draw.of([1, 2]),
        "nlayers": draw.of([1, 2, 3]),
        "e_rcut": rcut,
        "e_rcut_smth": 0.88 * rcut if exponential else start,
        "a_rcut": near,
        "a_rcut_smth": 0.87 * near if exponential else near_start,
        "axis_neuron": draw.of([1, 2, 4]),
        "a_compress_rate": rate,
        "a_compress_e_rate": draw.of([1, 2]),
        "a_compress_use_split": draw.chance(),
        "smooth_edge_update": smooth,
        "use_exp_switch": exponential,
        "update_style": draw.of(["res_residual", "res_avg", "res_incr"]),
        **draw.some(
            {
                "n_multi_edge_message": draw.of([1, 2, 3]),
                "update_angle": draw.chance(0.8),
                "edge_init_use_dist": draw.chance(),
            }
        ),
        **draw.some(
            {
                "fix_stat_std": draw.of([0.3, 0.0]),
                "update_residual_init": draw.of(["norm", "const"]),
                "optim_update": draw.chance(),
            }
        ),
        **draw.some({"use_dynamic_sel": smooth and draw.chance(), "sel_reduce_factor": draw.of([10.0, 3.0])}),
    }
    options = {
        "activation_function": draw.of(SMOOTH),
        "concat_output_tebd": draw.chance(),
        "env_protection": draw.of([0.0, 0.0, 0.2]),
        "exclude_types": draw.pairs(n),
        "use_econf_tebd": draw.chance(0.3),
        "use_tebd_bias": draw.chance(0.3),
        "use_loc_mapping": draw.chance(),
    }
    if rate:  # deepmd-kit's own conditions
        repflow["a_dim"] = max(repflow["a_dim"], 2 * rate)
        repflow["n_dim"] = max(repflow["n_dim"], repflow["a_dim"] // rate)
        repflow["e_dim"] = max(repflow["e_dim"], repflow["a_dim"] * repflow["a_compress_e_rate"] // (2 * rate))
    repflow["axis_neuron"] = min(repflow["axis_neuron"], repflow["n_dim"])
    if repflow["update_style"] == "res_residual" and repflow.get("update_angle", True):
        repflow["sequential_update"] = draw.chance(0.4)
    section = {"type": "dpa3", "repflow": repflow, **draw.some(options)}
    if draw.chance(0.3):
        section |= {"add_chg_spin_ebd": True, "default_chg_spin": draw.of([None, [0.0, 0.0], [2.0, 3.0]])}
    return section, False


ARCHITECTURES = {"se_a": se_a, "dpa1": dpa1, "dpa2": dpa2, "dpa3": dpa3}


def fitting(draw: Draw, n: int) -> dict:
    """A fitting section."""
    section = {
        "type": "ener",
        "neuron": draw.widths(),
        **draw.some({"activation_function": draw.of(SMOOTH), "resnet_dt": draw.chance()}),
    }
    if draw.chance(0.25):
        width = draw.of([1, 3])
        section["numb_fparam"] = width
        if draw.chance():
            section["default_fparam"] = [draw.between(-1, 1) for _ in range(width)]
    if draw.chance(0.2):
        section["atom_ener"] = [draw.of([None, -1.0]) for _ in range(n)]
    return section


def give_inputs(draw: Draw, params: dict, at: dict[str, Structure]) -> dict[str, Structure]:
    """fparam and charge_spin for every frame, or for some where the model has a default."""
    net, descriptor = params["fitting_net"], params["descriptor"]
    out = {}
    for name, s in at.items():
        inputs = {}
        if net.get("numb_fparam") and not (net.get("default_fparam") and draw.chance()):
            inputs["fparam"] = draw.rng.normal(0, 1, net["numb_fparam"])
        if descriptor.get("add_chg_spin_ebd") and not (descriptor.get("default_chg_spin") and draw.chance()):
            inputs["charge_spin"] = np.array([draw.of([-2.0, 0.0, 1.0]), draw.of([0.0, 1.0, 4.0])])
        out[name] = s._replace(inputs=inputs)
    return out


def normalised(params: dict) -> dict:
    """With every default written out, as ``dp train`` stores it."""
    from deepmd.utils.argcheck import model_args

    base = model_args()
    return base.normalize_value(copy.deepcopy(params), trim_pattern="_*")


def make(architecture: str, number: int, out: Path) -> None:
    """One case."""
    name = f"{architecture}_{number:03d}"
    seed = zlib.crc32(name.encode())
    draw = Draw(seed)
    type_map = [str(symbol) for symbol in draw.rng.permutation(ELEMENTS)[: draw.of([1, 2, 2, 3, 4])]]
    descriptor, mean = ARCHITECTURES[architecture](draw, len(type_map))
    if draw.chance(0.8):
        descriptor["precision"] = "float64"
    params: dict = {"type_map": type_map, "descriptor": descriptor, "fitting_net": fitting(draw, len(type_map))}
    if draw.chance(0.2):
        params["pair_exclude_types"] = [[int(v) for v in draw.rng.integers(0, len(type_map), 2)]]
    if draw.chance(0.2):
        params["atom_exclude_types"] = [int(draw.rng.integers(len(type_map)))]
    at = structures(draw, type_map)
    if descriptor["type"] == "dpa3":
        descriptor["repflow"] |= {"e_sel": 1, "a_sel": 1}
    count_slots(params, at, draw.of([1, 4, 12]))
    if draw.chance():
        params = normalised(params)
    if (
        descriptor["type"] != "dpa2"
        and "sel" in params["descriptor"]
        and draw.chance(0.3)
        and descriptor["type"] != "se_e2_a"
    ):
        params["descriptor"]["sel"] = [params["descriptor"]["sel"]]
    at = give_inputs(draw, params, at)
    if many := draw.chance(0.12):
        share = draw.chance()
        if share:
            params["fitting_net"]["dim_case_embd"] = 3
        params = multitask(params, ["beta", "Alpha", "gamma"], share)
    write(out / f"{name}.pt", params, at, seed % (1 << 31), mean)
    scripted = descriptor.get("repflow", {}).get("update_style", "res_residual") == "res_residual"
    if scripted and not many and draw.chance(0.12):
        freeze(out / f"{name}.pt")


def main() -> None:
    """Make the cases; one that deepmd-kit itself refuses is reported and left out."""
    out, count, first = Path(sys.argv[1]), *(int(v) for v in (*sys.argv[2:], *("40", "0")[len(sys.argv) - 2 :]))
    out.mkdir(parents=True, exist_ok=True)
    for architecture in ARCHITECTURES:
        for number in range(first, first + count):
            try:
                make(architecture, number, out)
            except Exception as error:
                text = (str(error).splitlines() or [""])[-1][:150]
                print(f"{architecture}_{number:03d}: {type(error).__name__}: {text}", flush=True)


if __name__ == "__main__":
    main()
