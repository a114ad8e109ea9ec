"""``lamella study``: the comparisons of the papers as commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lamella.cli.terminal import progress
from lamella.errors import InputError

__all__ = ["ablation", "benchmark", "drift", "heads", "learning_curve", "scaling", "tasks"]

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="[FILE] [KEY=VALUE]...", help="Settings of the study in YAML or JSON, and settings that win over them."
    ),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the study; studies/NAME where not given.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Trainings at a time, each on its share of the cores.")]
Plan = Annotated[bool, typer.Option("--plan", help="Write the recipes, say what would be trained, and stop.")]


def learning_curve(words: Words, out: Out = None, jobs: Jobs = 1, plan: Plan = False) -> None:
    """Error over sample size: pre-trained, from scratch, other architectures, the same steps for every size (Fig. 3)."""
    _study("learning-curve", words, out, jobs, plan)


def tasks(words: Words, out: Out = None, jobs: Jobs = 1, plan: Plan = False) -> None:
    """Single- against multi-task training at equal effective steps, and their zero-shot errors (Tables S3 and 2)."""
    _study("tasks", words, out, jobs, plan)


def benchmark(words: Words, out: Out = None, jobs: Jobs = 1, plan: Plan = False) -> None:
    """Architectures and ASE calculators on the same data, for the same steps (Tables S1 and S2)."""
    _study("benchmark", words, out, jobs, plan)


def heads(words: Words, out: Out = None, jobs: Jobs = 1, plan: Plan = False) -> None:
    """Fine-tuning from each head of a model, and from a random one (Fig. S2)."""
    _study("heads", words, out, jobs, plan)


def ablation(words: Words, out: Out = None, jobs: Jobs = 1, plan: Plan = False) -> None:
    """Parts of a model removed one after the other (Table S5)."""
    _study("ablation", words, out, jobs, plan)


def scaling(words: Words, out: Out = None, jobs: Jobs = 1, plan: Plan = False) -> None:
    """Error against parameters, data and compute: power laws, exponents with confidence intervals."""
    _study("scaling", words, out, jobs, plan)


def drift(words: Words, out: Out = None, plan: Plan = False) -> None:
    """Drift of the total energy in molecular dynamics without thermostat (Fig. S3)."""
    _study("drift", words, out, 1, plan)


def _study(kind: str, words: list[str], out: Path | None, jobs: int, plan: bool) -> None:
    from lamella.train.stop import Interrupted
    from lamella.use.study.studies import plan_study, read_config, run_study
    from lamella.use.study.trial import Work

    files = [word for word in words if "=" not in word or Path(word).exists()]
    if len(files) > 1:
        raise InputError(f"{' '.join(files)}: one file of settings is read; say the others as KEY=VALUE.")
    file = Path(files[0]) if files else None
    config = read_config(kind, file, [word for word in words if word not in files])
    folder = out if out is not None else Path("studies") / (file.stem if file is not None else kind)
    if plan:
        for line in plan_study(kind, config, folder):
            print(line)
        return
    try:
        page = run_study(kind, config, folder, Work(_say, progress, jobs))
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        raise typer.Exit(stopped.exit_code) from None
    print(page.read_text(encoding="utf-8"))
    print(f"written: {page}")


def _say(line: str) -> None:
    print(line, flush=True)
