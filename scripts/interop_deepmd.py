"""Let deepmd-kit compute the numbers that ``interop.py`` compares; runs with the Python of .envs/deepmd.

``python scripts/interop_deepmd.py JOBS.json``: a list of {"model", "frames", "out", "tasks"}; ``frames`` is an .npz as in
tests/golden, whose structures are read; ``out`` the .npz written; ``tasks`` the branches ([null] for a model with one).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from deepmd_cases import Structure, numbers


def structures(path: Path, task: str | None) -> dict[str, Structure]:
    """The frames of an .npz; of a task where it names tasks."""
    with np.load(path) as stored:
        arrays = dict(stored)
    start = f"{task}/" if any(key.count("/") == 2 for key in arrays) else ""
    frames = dict.fromkeys(key.removeprefix(start).split("/")[0] for key in arrays if key.startswith(start))
    out = {}
    for frame in frames:
        values = {key.split("/")[-1]: value for key, value in arrays.items() if key.startswith(f"{start}{frame}/")}
        inputs = {name: values[name] for name in ("fparam", "charge_spin") if name in values}
        out[frame] = Structure(values["positions"], values.get("cell"), [str(s) for s in values["symbols"]], inputs)
    return out


def main() -> None:
    """Evaluate every job; one that fails leaves its error beside the numbers that are missing."""
    for job in json.loads(Path(sys.argv[1]).read_text()):
        out = Path(job["out"])
        try:
            arrays = {}
            for task in job["tasks"]:
                arrays |= numbers(Path(job["model"]), structures(Path(job["frames"]), task), task)
            np.savez_compressed(out, **arrays)
        except Exception as error:
            out.with_suffix(".error").write_text(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
