"""``lamella finetune`` and ``lamella heads``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lamella.cli.terminal import labelled_frames, progress, settings
from lamella.cli.train import trained
from lamella.cli.use import Device, Key, ModelPath

if TYPE_CHECKING:
    from lamella.train.adapt.heads import HeadErrors
    from lamella.train.recipe import Recipe

__all__ = ["finetune", "heads"]

Data = Annotated[
    list[str],
    typer.Argument(metavar="DATA...", help="Labelled structures, embedded:NAME; and KEY=VALUE settings of the recipe."),
]


def finetune(
    model: ModelPath,
    data: Data,
    run: Annotated[Path | None, typer.Option(help="New folder for the run; runs/TASK where not given.")] = None,
    task: Annotated[
        str | None, typer.Option(help="Name of the new task, or one of the model's; else the first file's.")
    ] = None,
    head: Annotated[
        str, typer.Option(help="Where a new task's head comes from: a task of the model, best, or random.")
    ] = "best",
    valid: Annotated[list[str] | None, typer.Option(help="Validation data; else a tenth of the training data.")] = None,
    freeze: Annotated[str | None, typer.Option(help="backbone: heads alone; a number n: all before layer n + 1.")] = None,
    lora: Annotated[int | None, typer.Option(min=1, help="Rank of low-rank updates in place of whole matrices.")] = None,
    lora_alpha: Annotated[
        float | None, typer.Option(help="Scale of the updates, times 1/rank; the rank if not given.")
    ] = None,
    lora_matrices: Annotated[
        list[str] | None, typer.Option(help="Patterns of their names; backbone.* if not given.")
    ] = None,
    replay: Annotated[
        list[str] | None, typer.Option(help="Train a task of the model along: NAME, NAME=PATH[,PATH...], or all.")
    ] = None,
    replay_share: Annotated[float, typer.Option(help="Share of the steps for all that is replayed.")] = 0.25,
    source: Annotated[
        list[str] | None, typer.Option(help="Frames for the report on forgetting: NAME=PATH; else the training data.")
    ] = None,
    only: Annotated[bool, typer.Option("--only", help="Leave out the model's other tasks.")] = False,
    add_elements: Annotated[str | None, typer.Option(help="Elements that the model does not know: S,Cl.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="Errors before step 0 are taken on so many frames at most.")] = 256,
    allow_jump: Annotated[bool, typer.Option("--allow-jump", help="Start although errors jumped above zero-shot.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print the plan and stop.")] = False,
    energy_key: Key = None,
    forces_key: Key = None,
    stress_key: Key = None,
    virial_key: Key = None,
) -> None:
    """Adapt a model to your data: prints what loads, what is new and the errors before step 0, then trains."""
    given = dict(locals())
    recipe = _recipe(given)
    if plan:
        _print_plan(recipe)
    else:
        trained(recipe, run if run is not None else Path("runs") / next(iter(recipe.tasks)), False)


def _recipe(given: Mapping[str, Any]) -> Recipe:
    """The recipe that the options of the command mean."""
    from lamella.data.keys import LabelKeys
    from lamella.formats.load import load
    from lamella.train.adapt.compose import FinetuneConfig, finetune_recipe
    from lamella.train.adapt.config import StartConfig

    freeze, rank, alpha = given["freeze"], given["lora"], given["lora_alpha"]
    matrices = {"matrices": given["lora_matrices"]} if given["lora_matrices"] else {}
    start = settings(
        StartConfig,
        {name: given[name] for name in ("head", "only", "frames", "allow_jump")}
        | {
            "model": str(given["model"]),
            "add_elements": [symbol for symbol in (given["add_elements"] or "").split(",") if symbol],
            "freeze": int(freeze) if freeze is not None and freeze.isdigit() else freeze,
            "lora": None if rank is None else {"rank": rank, "alpha": float(rank) if alpha is None else alpha, **matrices},
        },
        "lamella finetune",
    )
    paths, overrides = _split(given["data"])
    keys = {name: given[f"{name}_key"] for name in ("energy", "forces", "stress", "virial")}
    choices = settings(
        FinetuneConfig,
        {name: given[name] or () for name in ("valid", "replay")}
        | {"data": paths, "task": given["task"], "keys": LabelKeys(**keys), "sources": given["source"] or ()}
        | {"replay_share": given["replay_share"]},
        "lamella finetune",
    )
    return finetune_recipe(load(given["model"]), start, choices, overrides)


def heads(
    model: ModelPath,
    data: Annotated[list[str], typer.Argument(help="Labelled structures: files, folders, embedded:NAME[:train|:test].")],
    frames: Annotated[int, typer.Option(min=1, help="Frames at most, drawn at random.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output, in eV/atom and eV/Å.")] = False,
    device: Device = None,
    energy_key: Key = None,
    forces_key: Key = None,
    stress_key: Key = None,
    virial_key: Key = None,
) -> None:
    """Rank a model's tasks on your data, each with its energies per element refitted: which head to start from."""
    from lamella.data.keys import LabelKeys
    from lamella.formats.load import load
    from lamella.train.adapt.heads import rank_heads
    from lamella.train.adapt.judge import some_frames

    potential = load(model, device)
    keys = LabelKeys(energy=energy_key, forces=forces_key, stress=stress_key, virial=virial_key)
    chosen = some_frames(labelled_frames(data, keys), frames, seed)
    with progress("tasks", len(potential.tasks)) as advance:
        ranking = rank_heads(potential, chosen, lambda head: advance(1, head.task))
    if as_json:
        content = {"model": str(model), "data": data, "frames": ranking[0].judged.frames}
        print(json.dumps(content | {"heads": [_entry(head) for head in ranking]}, indent=1, ensure_ascii=False))
        return
    _print_ranking(str(model), ranking)


def _split(data: list[str]) -> tuple[list[str], list[str]]:
    """Paths and settings: what has an equals sign and is no file is a setting."""
    overrides = [word for word in data if "=" in word and not Path(word).exists()]
    return [word for word in data if word not in overrides], overrides


def _print_plan(recipe: Recipe) -> None:
    from lamella.train.adapt.gate import JumpError
    from lamella.train.prepare import build_potential, open_tasks

    try:
        start = build_potential(recipe, open_tasks(recipe)).metadata["start"]
    except JumpError as jumped:
        print("\n".join(jumped.plan), flush=True)
        raise
    assert isinstance(start, dict)
    print("\n".join(start["plan"]))
    steps, optimizer, schedule = recipe.training.steps, recipe.optimizer, recipe.schedule
    slower = "" if optimizer.backbone_lr == 1.0 else f" (backbone × {optimizer.backbone_lr:g})"
    print(
        f"next      {steps:,} steps of {optimizer.kind}, lr {optimizer.lr:g}{slower} to {schedule.stop_lr:g}, "
        f"warm-up {schedule.warmup_steps}: the same command without --plan"
    )


def _entry(head: HeadErrors) -> dict[str, Any]:
    return {"task": head.task, "score": head.score, **head.errors, "baseline": head.refit.sentence}


def _print_ranking(model: str, ranking: list[HeadErrors]) -> None:
    from lamella.train.adapt.tables import error_table

    best = ranking[0]
    width = max(len("no network"), *(len(head.task) for head in ranking))
    rows = [(f"{head.task:<{width}}  {head.score:7.4f}", head.errors) for head in ranking]
    rows.append((f"{'no network':<{width}}  {1:7.4f}", best.judged.scale()))
    count = f"{len(ranking)} task{'s' if len(ranking) > 1 else ''}"
    print(f"{model}: {count} on {best.judged.frames} of your frames, energies per element refitted for each")
    print("\n".join(error_table(f"{'task':<{width}}    score", rows, indent=0)))
    print("score     error / error without a network (energies per element alone), geometric mean of E, F, V: 0 is perfect")
    print(f"baseline  {best.task}: {best.refit.sentence}")
    if best.score >= 1.0:
        print("advice    no task does better than energies per element alone: the network knows little of such structures")
    else:
        print(f"advice    `lamella finetune {model} DATA` begins with {best.task}; --head NAME takes another")
