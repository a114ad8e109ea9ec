"""The run in one sentence, and the manifest's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lamella.models.potential import Potential
from lamella.models.words import ARCHITECTURES, cutoffs, sizes
from lamella.train.adapt.config import RANDOM
from lamella.train.adapt.forgetting import read_forgetting
from lamella.train.adapt.tables import in_words
from lamella.use.report.page import Cell, Html, Table, paragraph
from lamella.use.report.run import Run
from lamella.use.report.sections import duration

__all__ = ["facts", "headline"]


def headline(run: Run, model: Potential | None) -> tuple[str, Html]:
    """Title and first sentence: which model, trained on what."""
    if model is None:
        return "A run without a model", paragraph(
            "This run has not saved a model that can be read, so only its log is shown.", "lead"
        )
    kind = ARCHITECTURES[model.config.backbone.kind]
    title = f"A {kind} potential for {_listed(model.elements)}"
    frames = [_frames(run, task, "train") for task in model.tasks]
    known = [count for count in frames if count is not None]
    data = f"to {sum(known):,} labelled structures" if known else "to labelled structures"
    names = [task for task in model.tasks if task != "default"]
    source = f" ({'tasks' if len(names) > 1 else 'task'} {_listed(names)})" if names else ""
    steps, seconds = _last(run.log, "step"), _last(run.log, "seconds")
    spent = f" in {duration(seconds)}" if seconds else ""
    made = f", by {int(steps):,} training steps{spent}" if steps else ""
    said = (
        "The model gives the energy of any arrangement of these elements, and the forces on their atoms, from positions "
        "alone. Its "
        f"{model.parameter_count():,} parameters were fitted {data}{source}{made}."
    )
    return title, paragraph(said, "lead")


def facts(run: Run, model: Potential | None) -> Table:
    """What and value, one fact a row; only what the run says of itself."""
    metadata = run.model.get("metadata") or {}
    rows: list[list[Cell]] = [["run folder", run.folder.resolve().name]]
    rows += [["best step (the model judged here)", run.best or "–"], ["last step saved", run.last or "–"]]
    if model is not None:
        backbone = model.config.backbone
        inputs = ", ".join(wanted.name for wanted in model.graph_spec.inputs)
        rows += [
            ["model", ARCHITECTURES[backbone.kind]],
            ["sizes", sizes(backbone)],
            ["cutoffs", cutoffs(backbone)],
            ["reads of each structure, beside its atoms", inputs or "nothing"],
            ["parameters", f"{model.parameter_count():,}"],
            ["elements", " ".join(model.elements)],
            ["precision of the weights", str(model.dtype).removeprefix("torch.")],
        ]
        for index, task in enumerate(model.tasks):
            energies = ", ".join(f"{s} {e:.4f}" for s, e in zip(model.elements, model.baseline[index].tolist(), strict=True))
            rows.append([f"energy per element (baseline) of task {task}, eV", energies])
    for task, record in (metadata.get("data") or {}).items():
        rows += [_data_row(task, part, content) for part, content in record.items() if content]
    for task, record in (metadata.get("statistics") or {}).items():
        if record.get("baseline"):
            rows.append([f"baseline of task {task}: how it was found", str(record["baseline"])])
    rows += _start_rows(run, metadata)
    rows.append(["seed", str(run.recipe.get("seed", "–"))])
    rows += [[f"version of {name}", str(value)] for name, value in (metadata.get("versions") or {}).items()]
    rows += [[f"hardware: {name}", str(value)] for name, value in (metadata.get("hardware") or {}).items()]
    seconds = _last(run.log, "seconds")
    rows.append(["time spent training", duration(seconds) if seconds else "–"])
    return rows


def _start_rows(run: Run, metadata: Mapping[str, Any]) -> list[list[Cell]]:
    """Which model the run started from, with which errors, and what of it was forgotten."""
    start = metadata.get("start")
    if not isinstance(start, dict):
        return []
    rows: list[list[Cell]] = [["started from", f"{start['model']}, which knew {_listed(start['tasks'])}"]]
    for task, entry in start["errors"].items():
        head = start["heads"].get(task)
        rows.append([f"head of task {task}", _head(head)])
        shot = f"; zero-shot {in_words(entry['zero_shot'])}" if entry["zero_shot"] else ""
        rows.append([f"errors of task {task} before step 0", in_words(entry["before"]) + shot])
    for task, entry in read_forgetting(run.folder).items():
        shown = f"{in_words(entry['before'])} before, {in_words(entry['after'])} after"
        rows.append([f"task {task} of that model, {entry['frames']} frames", shown])
    return rows


def _head(origin: str | None) -> str:
    """Where the head of a task comes from."""
    if origin is None:
        return "went on with its own"
    return "began at random" if origin == RANDOM else f"began as that of {origin}"


def _data_row(task: str, part: str, content: Mapping[str, Any]) -> list[Cell]:
    paths = ", ".join(str(path) for path in content.get("paths") or ())
    kind = {"train": "training", "valid": "validation"}.get(part, part)
    frames = content.get("frames")
    count = f"{frames:,} structures" if isinstance(frames, int) else "structures"
    return [f"{kind} data of task {task}", f"{count} from {paths}; content hash {content.get('hash', '–')}"]


def _frames(run: Run, task: str, part: str) -> int | None:
    record = ((run.model.get("metadata") or {}).get("data") or {}).get(task) or {}
    count = (record.get(part) or {}).get("frames")
    return count if isinstance(count, int) else None


def _last(log: Sequence[Mapping[str, Any]], key: str) -> float | None:
    known = [record[key] for record in log if isinstance(record.get(key), (int, float))]
    return max(known) if known else None


def _listed(words: Sequence[str]) -> str:
    if len(words) > 8:
        return f"{', '.join(words[:6])} and {len(words) - 6} more"
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
