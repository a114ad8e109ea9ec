"""DPA-3 L6 beside deepmd-kit 3.2.0: the same weights, the same 192-atom water frame, float32, steps taken in turn.

    make deepmd                                  # once: deepmd-kit in .envs/deepmd
    python benchmarks/against_deepmd.py          # prints the table, writes it to --out

The two codes run as two processes that are never busy at the same time; each pair of steps gives one ratio, and the median
of the ratios is what counts. Absolute times belong to the machine. Weights are deepmd-kit's own random ones; the frame is
the embedded water box, repeated four times and shaken. Skips with a message where deepmd-kit is absent.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from lamella import datasets

HERE = Path(__file__).parent
DEEPMD = HERE.parent / ".envs" / "deepmd" / "bin" / "python"
REPFLOW = {
    "n_dim": 128, "e_dim": 64, "a_dim": 32, "nlayers": 6, "axis_neuron": 4,
    "e_rcut": 6.0, "e_rcut_smth": 5.3, "e_sel": 120, "a_rcut": 4.0, "a_rcut_smth": 3.5, "a_sel": 40,
    "a_compress_rate": 1, "a_compress_e_rate": 2, "a_compress_use_split": True, "update_angle": True,
    "smooth_edge_update": True, "edge_init_use_dist": True, "use_exp_switch": True, "fix_stat_std": 0.3,
    "update_style": "res_residual", "update_residual": 0.1, "update_residual_init": "const",
}  # fmt: skip
MODEL = {
    "type_map": ["O", "H"],
    "descriptor": {
        "type": "dpa3", "repflow": REPFLOW, "activation_function": "silut:10.0", "precision": "float32",
        "use_tebd_bias": False, "concat_output_tebd": False, "seed": 1,
    },
    "fitting_net": {
        "type": "ener", "neuron": [240, 240, 240], "resnet_dt": True, "precision": "float32",
        "activation_function": "silut:10.0", "seed": 1,
    },
}  # fmt: skip
"""deepmd-kit's shipped example with a_sel 40 in place of 30: this frame has atoms with more than 30 neighbours within 4 Å,
and deepmd-kit would cut them away."""


def main() -> int:
    """Run both codes in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--deepmd", type=Path, default=DEEPMD, help="python of an environment with deepmd-kit")
    parser.add_argument("--pairs", type=int, default=5, help="timed pairs of steps, after one pair of warm-up")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    settings = parser.parse_args()
    if not settings.deepmd.exists():
        print(f"skipped: no deepmd-kit at {settings.deepmd}; `make deepmd` installs it.")
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)
        subprocess.run(
            [settings.deepmd, HERE / "workers" / "deepmd_kit.py", "make", folder / "model.pt", folder / "model.json"],
            check=True, capture_output=True,
        )  # fmt: skip
        rows = {task: compare(settings.deepmd, folder, task, settings.pairs) for task in ("energy", "train")}
    report = {"threads": torch.get_num_threads(), "torch": torch.__version__, "machine": platform.machine(), "rows": rows}
    print(table(report))
    if settings.out:
        settings.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def write_inputs(folder: Path) -> None:
    """The model's configuration and the frame; labels are zero, since only the time matters."""
    (folder / "model.json").write_text(json.dumps(MODEL))
    atoms = datasets.water_box().repeat((2, 2, 1))
    positions = atoms.positions + np.random.default_rng(0).normal(0.0, 0.02, atoms.positions.shape)
    np.savez(
        folder / "frame.npz",
        numbers=atoms.numbers, species=(atoms.numbers == 1).astype(np.int64), positions=positions,
        cell=np.asarray(atoms.cell), energy=np.float64(0.0), forces=np.zeros_like(positions),
    )  # fmt: skip


def compare(deepmd: Path, folder: Path, task: str, pairs: int) -> dict[str, float]:
    """Medians over pairs of steps, and the peak memory of each process."""
    arguments = [task, str(folder / "model.pt"), str(folder / "frame.npz")]
    workers = {
        "deepmd": _start([str(deepmd), str(HERE / "workers" / "deepmd_kit.py"), *arguments]),
        "lamella": _start([sys.executable, str(HERE / "workers" / "lamella_kit.py"), *arguments]),
    }
    rounds = []
    for number in range(pairs + 1):
        result = {name: _step(worker, 0.1 * number) for name, worker in workers.items()}
        difference = abs(result["deepmd"][1] - result["lamella"][1])
        if difference > 1e-5 * abs(result["deepmd"][1]) or abs(result["deepmd"][2] / result["lamella"][2] - 1) > 1e-3:
            raise SystemExit(f"the two codes disagree: {result}")
        print(f"{task} {number}: deepmd-kit {result['deepmd'][0]:.2f} s, lamella {result['lamella'][0]:.2f} s", flush=True)
        rounds.append(result)
    for worker in workers.values():
        worker.communicate()
    timed = rounds[1:]
    return {
        "deepmd_s": statistics.median(r["deepmd"][0] for r in timed),
        "lamella_s": statistics.median(r["lamella"][0] for r in timed),
        "ratio": statistics.median(r["deepmd"][0] / r["lamella"][0] for r in timed),
        "ratio_min": min(r["deepmd"][0] / r["lamella"][0] for r in timed),
        "ratio_max": max(r["deepmd"][0] / r["lamella"][0] for r in timed),
        "deepmd_MB": rounds[-1]["deepmd"][3],
        "lamella_MB": rounds[-1]["lamella"][3],
    }


def table(report: dict) -> str:
    """The report as a Markdown table."""
    lines = [
        f"DPA-3 L6 (128/64/32, 6 Å/4 Å), 192 atoms of water, float32, {report['threads']} threads, torch {report['torch']}",
        "",
        "| | deepmd-kit 3.2.0 | lamella | ratio, median (min-max) | peak memory deepmd-kit | lamella | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, row in report["rows"].items():
        label = {"energy": "energy + forces", "train": "training step"}[task]
        lines.append(
            f"| {label} | {row['deepmd_s']:.2f} s | {row['lamella_s']:.2f} s | {row['ratio']:.1f} "
            f"({row['ratio_min']:.1f}-{row['ratio_max']:.1f}) | {row['deepmd_MB'] / 1024:.1f} GB "
            f"| {row['lamella_MB'] / 1024:.1f} GB | {row['lamella_MB'] / row['deepmd_MB']:.2f} |"
        )
    return "\n".join(lines)


def _start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _step(worker: subprocess.Popen[str], shift: float) -> list[float]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{shift}\n")
    worker.stdin.flush()
    while line := worker.stdout.readline():
        if line.startswith("["):  # deepmd-kit prints other things too
            return json.loads(line)
    raise SystemExit(f"a worker stopped: {worker.args}")


if __name__ == "__main__":
    raise SystemExit(main())
