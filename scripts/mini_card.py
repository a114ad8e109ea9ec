"""Put lamella-mini into the package and write its model card.

    python scripts/train_mini.py bundle   --out WORK --name mini --to BUNDLE
    python scripts/evaluate_mini.py BUNDLE --out WORK --data DATA
    python scripts/mini_card.py BUNDLE    --out WORK

Copies BUNDLE to src/lamella/published/lamella-mini, with the main parts of the card in its metadata (`lamella show
lamella-mini` prints them), and writes docs/lamella-mini.md. All figures are read: of the data from WORK/data.json, of the
errors from WORK/errors.json, of the training from the bundle and from WORK/mini/log.jsonl, licences and citations from the
catalogue of data sets. The words are those below; read them again when the figures have changed.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from evaluate_mini import markdown
from lamella.data.catalogue.table import entry
from lamella.formats.published import IN_PACKAGE
from lamella.models.bundle import WEIGHTS, load_model, save_model
from lamella.models.potential import Potential
from lamella.models.words import ARCHITECTURES, cutoffs, sizes
from lamella.train.recipe import EMBEDDED
from mini_data import TASKS, Part, Task

NAME = "lamella-mini"
PAGE = Path(__file__).resolve().parents[1] / "docs" / f"{NAME}.md"
LARGEST = 10_000_000  # bytes of the package's copy
DEFAULT_TASK = "mad"
WHY_DEFAULT = "its data hold crystals, rattled crystals and molecular crystals of 85 elements at one level of theory"
NOT_FOR = (
    "numbers that go into a paper, or a decision that costs money: fine-tune it, or take a large model, and test",
    "energies of one task beside energies of another: each has its own zero, and its own functional",
    "forces of crystals near their equilibrium: on Alexandria and on MPtrj as it comes its errors are above the labels' "
    "spread, so that a force of zero would be nearer; relax with a model fine-tuned for that",
    "elements that a task never saw (the table of tasks): its energies of them mean nothing",
    "reaction barriers, broken bonds, charges, open shells, magnetism, excited states: no task has labels of them",
    "pressures beyond 150 GPa and forces beyond 20 eV/Å: such frames did not train it",
    "long-range electrostatics and dispersion: it sees 5 Å a layer and nothing beyond its layers' reach",
)
LICENCE = (
    "MIT, like lamella. It was trained on sets whose licences allow that (MIT, BSD-3-Clause, CC BY 4.0, the NIST "
    "licence) and on sets that lamella computed itself; none is non-commercial or copyleft. "
    "CC BY 4.0 asks for attribution: the citations of the card."
)


def card(model: Potential, errors: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """What ``lamella show`` prints: a small part of the page."""
    return {
        "tasks": {
            task: {
                "frames": data[task]["train"],
                "sets": [part.name for part in TASKS[task].parts],
                "elements": [s for s, energy in zip(model.elements, model.baseline[index].tolist(), strict=True) if energy],
            }
            for index, task in enumerate(model.tasks)
        },
        "errors": [
            {key: row[key] for key in ("task", "set", "frames")}
            | {key: round(row[key], 1) for key in ("energy_rmse", "energy_std", "forces_rmse", "forces_std")}
            for row in errors["tests"]
            if row["kind"] == "all"
        ],
        "not_for": list(NOT_FOR),
        "licence": LICENCE,
    }


def install(bundle: Path, errors: dict[str, Any], data: dict[str, Any]) -> Potential:
    """Write the package's copy."""
    model = load_model(bundle)
    frames = sum(data[task]["train"] for task in model.tasks)
    model.metadata |= {
        "about": f"{ARCHITECTURES[model.config.backbone.kind]}, {model.parameter_count():,} parameters, {len(model.tasks)} "
        f"tasks, {len(model.elements)} elements, {frames:,} frames: for a first look and as a start for fine-tuning",
        "default_task": DEFAULT_TASK,
        "methods": {task: TASKS[task].method for task in model.tasks},
        "card": card(model, errors, data),
    }
    folder = IN_PACKAGE[NAME]
    folder.mkdir(parents=True, exist_ok=True)
    save_model(model, folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    if size > LARGEST:
        raise SystemExit(f"{folder}: {size / 1e6:.1f} MB, more than {LARGEST / 1e6:g}.")
    return model


def page(model: Potential, work: Path, errors: dict[str, Any], data: dict[str, Any]) -> str:
    """The model card."""
    size = (IN_PACKAGE[NAME] / WEIGHTS).stat().st_size / 1e6
    parts = [
        f"# {NAME}: the model in the box",
        "<!-- written by scripts/mini_card.py: change the script, not this page -->",
        f"A small DPA-3, pre-trained on {len(model.tasks)} tasks at once, that comes with lamella ({size:.1f} MB). A first "
        "force needs neither a download nor training, and fine-tuning has something to start from.",
        FIRST,
        f"Where no task is named, **{DEFAULT_TASK}** ({TASKS[DEFAULT_TASK].method}) answers and says so in one line: "
        f"{WHY_DEFAULT}. It is not always the best: choose by the table, or let `lamella heads lamella-mini DATA` rank the "
        "tasks on labels of yours. An element that the task never saw is warned of.",
        "## What it must not be used for",
        "\n".join(f"* {line};" for line in NOT_FOR).removesuffix(";") + ".",
        "## Tasks",
        _tasks(model, data),
        "## Errors",
        ERRORS,
        markdown(errors["tests"], errors["downstream"]).rstrip().replace("\n\n", f"\n\n{DOWNSTREAM}\n\n"),
        "## Data",
        LICENCE,
        _sources(),
        "Hashes of the frames (`lamella.data.digest`), and what was left out and why:",
        _hashes(data),
        "## Recipe and cost",
        _recipe(model, work),
        "## Making it again",
        AGAIN,
    ]
    return "\n\n".join(parts) + "\n"


FIRST = """```python
import lamella
from ase.build import bulk, molecule

for atoms in (molecule("CH3CH2OH"), bulk("NaCl", "rocksalt", a=5.64)):
    atoms.calc = lamella.Calculator("lamella-mini")
    print(atoms.get_forces())
```

The name stands wherever a command takes a model: `lamella md lamella-mini structure.cif --task mp`, `lamella eval`, `relax`,
`check`, `explain`, `heads`, `table`, `finetune`. `lamella show lamella-mini` prints the main parts of this page."""

ERRORS = """Root mean square and mean absolute errors after the task's energies per element, in meV/atom and meV/Å, on
frames that did not train it, beside the spread of the labels (std): a model that always answers the mean has an error of one
std. "In range" are the frames that the filter of the training data would have let through; the other rows hold all. The
virial V is in meV/atom."""

DOWNSTREAM = """**Zero-shot** on sets of other levels of theory, which never trained it: energies per element are refitted on
training frames of the set, and the task is the one whose forces are nearest there; no weight is changed. "Of nothing" is the
energy error without a network."""

AGAIN = """```sh
python scripts/train_mini.py prepare --data DATA --out WORK
python scripts/train_mini.py train   --out WORK --minutes 60
python scripts/train_mini.py finish  --out WORK --steps 4000 --name mini
python scripts/train_mini.py bundle  --out WORK --name mini --to BUNDLE
python scripts/evaluate_mini.py BUNDLE --out WORK --data DATA
python scripts/mini_card.py BUNDLE --out WORK
```

DATA holds the sets above as extended XYZ files; `scripts/mini_data.py` says which files, which frames are held out, and
which are left out. A frame that is a held-out frame again (turned, relabelled, the next step of a relaxation) does not
train."""


def _tasks(model: Potential, data: dict[str, Any]) -> str:
    lines = ["| task | labels | trained on | frames | elements |", "|---|---|---|---|---|"]
    for index, task in enumerate(model.tasks):
        have = [s for s, energy in zip(model.elements, model.baseline[index].tolist(), strict=True) if energy]
        missing = [s for s in model.elements if s not in have]
        few = " ".join(have) if len(have) < 45 else f"{len(have)}: all but {' '.join(missing)}"
        sets = ", ".join(part.name for part in TASKS[task].parts)
        lines.append(f"| **{task}** | {TASKS[task].method} | {sets} | {data[task]['train']:,} | {few} |")
    return "\n".join(lines)


def _set(part: Part) -> str:
    return part.train[0].removeprefix(EMBEDDED).partition(":")[0].partition("/")[0]


def _sources() -> str:
    lines = ["| set | labels | licence | source | cite |", "|---|---|---|---|---|"]
    for name in dict.fromkeys(_set(part) for task in TASKS.values() for part in task.parts):
        task, part = next((t, p) for t in TASKS.values() for p in t.parts if _set(p) == name)
        if part.train[0].startswith(EMBEDDED):
            lines.append(f"| {name} | {_own_method(task, name)} | MIT | lamella's own ([how](datasets.md)) | lamella |")
        else:
            known = entry(name)
            source = f"[{known.source}]({known.page})" if known.page else str(known.source)
            lines.append(f"| {name} | {known.method} | {known.licence} | {source} | {known.citation} |")
    return "\n".join(lines)


def _own_method(task: Task, name: str) -> str:
    return task.method if len(task.parts) == 1 or name.split("_")[1] in ("gfn2", "pbe") else name


def _hashes(data: dict[str, Any]) -> str:
    lines = ["| task | training frames | SHA-256 | left out |", "|---|---|---|---|"]
    for task in TASKS:
        left = "; ".join(f"{count} {why}" for why, count in data[task]["left_out"].items() if count)
        wrong = f"; {len(data[task]['lint'])} by lint" if data[task]["lint"] else ""
        said = (left + wrong).removeprefix("; ") or "–"
        lines.append(f"| {task} | {data[task]['train']:,} | `{data[task]['hash']}` | {said} |")
    return "\n".join(lines)


def _recipe(model: Potential, work: Path) -> str:
    recipe: Any = model.metadata["recipe"]
    step, weights = int(str(model.metadata["step"])), {name: task["weight"] for name, task in recipe["tasks"].items()}
    records = [json.loads(line) for line in (work / "mini" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    seconds = max(float(record.get("seconds", 0.0)) for record in records)
    total = sum(weights.values())
    shares = ", ".join(f"{name} {weight / total:.0%}" for name, weight in weights.items())
    optimizer, schedule = recipe["optimizer"], recipe["schedule"]
    return "\n".join(
        [
            f"* **model**: {ARCHITECTURES[model.config.backbone.kind]}; {sizes(model.config.backbone)}; "
            f"{cutoffs(model.config.backbone)}; one head for all tasks, with dataset encoding; {model.parameter_count():,} "
            f"parameters, {recipe['dtype']};",
            f"* **sampling**: one task a step, drawn with its weight ({shares}); batches of at most so many edges;",
            "* **loss and optimiser**: squares of energies and forces, virials where there are any; "
            f"{optimizer['kind']}, learning rate {optimizer['lr']:g}, constant, then falling to {schedule['stop_lr']:g}; an "
            "average of the weights over steps is kept;",
            f"* **length**: {step:,} steps, {seconds / 60:.0f} minutes on one core of a CPU that other work shared. That is "
            "little: published models of this kind take weeks of GPUs and 10,000 times the frames. Its errors show it.",
        ]
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="what train_mini.py bundle wrote")
    parser.add_argument("--out", type=Path, required=True, help="the folder of train_mini.py and evaluate_mini.py")
    given = parser.parse_args()
    errors, data = (json.loads((given.out / f"{name}.json").read_text(encoding="utf-8")) for name in ("errors", "data"))
    model = install(given.bundle, errors, data)
    PAGE.write_text(page(model, given.out, errors, data), encoding="utf-8")
    print(f"written: {IN_PACKAGE[NAME]}, {PAGE}")


if __name__ == "__main__":
    main()
