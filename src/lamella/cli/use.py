"""``lamella eval``, ``lamella md`` and ``lamella relax``."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lamella.cli.terminal import check_output, labelled_frames, progress, read_structure, settings
from lamella.use.settings import Ensemble, MDConfig, OptimizerName, RelaxConfig, Velocities

if TYPE_CHECKING:
    from ase import Atoms
    from rich.table import Table

    from lamella.types import Frame, Prediction
    from lamella.use.calculator import Calculator
    from lamella.use.dynamics import MDResult, MDSample
    from lamella.use.evaluate import Evaluation
    from lamella.use.relax import RelaxResult, RelaxStep

__all__ = ["evaluate", "md", "relax"]

_MD, _RELAX = MDConfig(), RelaxConfig()

ModelPath = Annotated[Path, typer.Argument(help="A run or step folder, a deepmd-kit .pt/.pth, or a published model's name.")]
Structure = Annotated[str, typer.Argument(help="A file ASE reads (last frame; FILE@3 for another), or embedded:water_box.")]
Task = Annotated[str | None, typer.Option(help="Which task's labels to predict; needed where the model has several.")]
Dtype = Annotated[
    str | None, typer.Option(help="float64, float32; of md and relax also tf32, bf16. Default: the checkpoint's.")
]
Device = Annotated[str | None, typer.Option(help="For example cpu or cuda:0; the CPU where not given.")]
Key = Annotated[str | None, typer.Option(help="The data's key of this label; guessed and reported where not given.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace output files that exist.")]


def evaluate(
    model: ModelPath,
    data: Annotated[list[str], typer.Argument(help="Labelled structures: files, folders, embedded:NAME[:train|:test].")],
    task: Task = None,
    as_json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output, in eV/atom and eV/Å.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write predictions beside labels to this .extxyz file.")] = None,
    dtype: Dtype = None,
    device: Device = None,
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst frames to list.")] = 5,
    energy_key: Key = None,
    forces_key: Key = None,
    stress_key: Key = None,
    virial_key: Key = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare predictions with labels: RMSE and MAE of energy per atom, forces and virial, and the worst frames."""
    from lamella.data.keys import LabelKeys
    from lamella.formats.load import load
    from lamella.use import evaluate as evaluation
    from lamella.use.predict import batch_plan

    check_output(out, overwrite)
    potential = load(model, device, dtype)
    potential.task_index(task)
    keys = LabelKeys(energy=energy_key, forces=forces_key, stress=stress_key, virial=virial_key)
    frames = labelled_frames(data, keys)
    if not as_json:
        print(f"peak memory {batch_plan(potential, frames)}", flush=True)
    with ExitStack() as stack:
        write = stack.enter_context(evaluation.predictions_file(out)) if out else None
        advance = stack.enter_context(progress("predicting", len(frames)))

        def on_frame(frame: Frame, prediction: Prediction) -> None:
            if write is not None:
                write(frame, prediction)
            advance(1, "")

        result = evaluation.evaluate(potential, frames, task, on_frame, worst)
    if as_json:
        print(json.dumps({"model": str(model), "data": data, **result.summary()}, indent=2, ensure_ascii=False))
        return
    _print_evaluation(result)
    if out:
        print(f"predictions beside labels: {out}")


def md(
    model: ModelPath,
    structure: Structure,
    ensemble: Annotated[Ensemble, typer.Option(help="nvt: stochastic velocity rescaling; npt: isotropic.")] = _MD.ensemble,
    temperature: Annotated[float, typer.Option(help="K.")] = _MD.temperature,
    pressure: Annotated[float, typer.Option(help="GPa, for npt.")] = _MD.pressure,
    time: Annotated[float, typer.Option(help="ps.")] = _MD.time,
    timestep: Annotated[float, typer.Option(help="fs.")] = _MD.timestep,
    seed: Annotated[int, typer.Option(help="Of velocities and thermostat.")] = _MD.seed,
    every: Annotated[int, typer.Option(help="Steps between frames of the trajectory.")] = _MD.every,
    velocities: Annotated[Velocities, typer.Option(help="Draw them, or keep the structure's.")] = _MD.velocities,
    thermostat_time: Annotated[float, typer.Option(help="fs.")] = _MD.thermostat_time,
    barostat_time: Annotated[float, typer.Option(help="fs.")] = _MD.barostat_time,
    max_temperature: Annotated[float, typer.Option(help="K; the run stops as exploded above it.")] = _MD.max_temperature,
    trajectory: Annotated[Path, typer.Option(help="An .extxyz or .traj file; a .json goes beside it.")] = Path("md.extxyz"),
    task: Task = None,
    dtype: Dtype = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Run molecular dynamics; report drift (NVE), temperature and speed; write a trajectory and a summary beside it."""
    given = {name: value for name, value in locals().items() if name in MDConfig.model_fields}
    config = settings(MDConfig, given, "lamella md")
    from lamella.errors import LamellaError
    from lamella.use.dynamics import run_md
    from lamella.use.save import replacing

    summary = trajectory.with_suffix(".json")
    check_output(trajectory, overwrite)
    check_output(summary, overwrite)
    calculator, atoms = _calculator(model, task, dtype, device), read_structure(structure)
    _announce(atoms, calculator, structure)
    with progress(config.ensemble.upper(), config.steps) as advance:
        done = 0

        def on_sample(sample: MDSample) -> None:
            nonlocal done
            advance(sample.step - done, f"{sample.time:.3f} ps  E {sample.energy:.6f} eV  T {sample.temperature:.1f} K")
            done = sample.step

        result = run_md(atoms, calculator, config, trajectory, on_sample)
    _print_md(result)
    with replacing(summary) as file:
        content = {"model": str(model), "structure": structure, "trajectory": trajectory.name, **_where(calculator)}
        json.dump(content | result.summary(), file, indent=2, ensure_ascii=False, allow_nan=False)
    print(f"written      {trajectory} ({len(result.samples)} frames), {summary}")
    if result.stopped is not None:
        raise LamellaError(f"{result.stopped}; {len(result.samples)} frames are kept in {trajectory}.")


def relax(
    model: ModelPath,
    structure: Structure,
    fmax: Annotated[float, typer.Option(help="eV/Å; converged when no force is longer.")] = _RELAX.fmax,
    cell: Annotated[bool, typer.Option("--cell", help="Relax the cell too.")] = _RELAX.cell,
    pressure: Annotated[float, typer.Option(help="GPa, on the cell.")] = _RELAX.pressure,
    steps: Annotated[int, typer.Option(help="At most so many.")] = _RELAX.steps,
    optimizer: Annotated[OptimizerName, typer.Option(help="bfgs is quick for small systems.")] = _RELAX.optimizer,
    out: Annotated[Path, typer.Option(help="Where the relaxed structure goes, .extxyz.")] = Path("relaxed.extxyz"),
    task: Task = None,
    dtype: Dtype = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Relax a structure; exit with status 1, the last structure written all the same, where it did not converge."""
    given = {name: value for name, value in locals().items() if name in RelaxConfig.model_fields}
    config = settings(RelaxConfig, given, "lamella relax")
    from ase.io import write

    from lamella.errors import LamellaError
    from lamella.use import relax as relaxation
    from lamella.use.save import replacing

    check_output(out, overwrite)
    calculator, atoms = _calculator(model, task, dtype, device), read_structure(structure)
    _announce(atoms, calculator, structure)
    with progress("relaxing", config.steps) as advance:

        def on_step(step: RelaxStep) -> None:
            advance(min(step.step, 1), f"E {step.energy:.6f} eV  fmax {step.fmax:.4f} eV/Å")

        result = relaxation.relax(atoms, calculator, config, on_step)
    with replacing(out) as file:
        result.atoms.info |= {"converged": result.converged, "relax_steps": result.final.step}
        write(file, result.atoms, format="extxyz")
    _print_relax(result, out)
    if not result.converged:
        why = result.stopped or f"not converged after {result.final.step} steps (fmax {result.final.fmax:.4g} eV/Å)"
        raise LamellaError(f"{why}; the last structure is in {out}: go on from it with more --steps.")


def _calculator(model: Path, task: str | None, dtype: str | None, device: str | None) -> Calculator:
    from lamella.formats.load import load
    from lamella.use.calculator import Calculator

    return Calculator(load(model, device), task, dtype)


def _where(calculator: Calculator) -> dict[str, str]:
    model = calculator.model
    return {"task": calculator.task, "dtype": calculator.precision, "device": str(model.device)}


def _announce(atoms: Atoms, calculator: Calculator, structure: str) -> None:
    """Say what is about to run, if it can: an error about the structure names its file here, and only here."""
    calculator.require_neighbors(atoms, structure)
    where = _where(calculator)
    periodic = ("not periodic", "periodic in 1 direction", "periodic in 2 directions", "periodic")[int(atoms.pbc.sum())]
    print(
        f"{structure}: {atoms.get_chemical_formula()}, {len(atoms)} atoms, {periodic}; "
        f"task {where['task']}, {where['dtype']} on {where['device']}; peak memory {calculator.memory_plan(atoms)}",
        flush=True,
    )


def _print_evaluation(result: Evaluation) -> None:
    from rich.console import Console

    from lamella.use.evaluate import UNITS

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # nobody folds a file's lines
    console.print(f"task {result.task}: {result.frames} frames, {result.atoms} atoms", highlight=False)
    rows = [(f"{name}, m{UNITS[name]}", error) for name, error in result.errors.items()]
    rows += [(f"  forces on {symbol}, meV/Å", error) for symbol, error in result.by_element.items()]
    table = _table("quantity", "RMSE", "MAE", "mean error", "label std", "values")
    for title, error in rows:
        numbers = (error.rmse, error.mae, error.mean_error, error.label_std)
        table.add_row(title, *(f"{1000 * value:.2f}" for value in numbers), str(error.count))
    console.print(table)
    for name, title in (("energy", "worst energies, meV/atom"), ("forces", "worst forces, meV/Å")):
        if not result.worst[name]:
            continue
        table = _table(title, "energy error", "force RMSE", "largest", "on atom", "atoms")
        for item in result.worst[name]:
            values = (item.energy, item.forces, item.largest)
            cells = ["-" if value is None else f"{1000 * value:.2f}" for value in values]
            table.add_row(item.source, *cells, "-" if item.atom is None else str(item.atom), str(item.atoms))
        console.print(table)


def _table(first: str, *others: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def _print_md(result: MDResult) -> None:
    config = result.config
    print(f"{config.ensemble.upper()}: {result.steps} of {config.steps} steps of {config.timestep:g} fs, seed {config.seed}")
    if result.drift is not None and result.fluctuation is not None:
        print(f"drift        {result.drift:.3e} eV/atom/ps (slope of a line through E_total/N)")
        print(f"fluctuation  {result.fluctuation:.3e} eV/atom about that line")
    for name, pair, unit in (
        ("temperature", result.temperature, "K"),
        ("volume", result.volume if config.ensemble == "npt" else None, "Å³"),
        ("pressure", result.pressure, "GPa"),
    ):
        if pair is not None:
            print(f"{name:<12} {pair[0]:.4g} ± {pair[1]:.2g} {unit}")
    print(f"speed        {result.steps_per_second:.2f} steps/s, {result.us_per_atom_step:.1f} µs/atom/step")


def _print_relax(result: RelaxResult, out: Path) -> None:
    first, last = result.initial, result.final
    print(f"{'converged' if result.converged else 'NOT converged'} after {last.step} steps of {result.config.optimizer}")
    print(f"energy    {first.energy:.6f} -> {last.energy:.6f} eV")
    print(f"fmax      {first.fmax:.4g} -> {last.fmax:.4g} eV/Å (criterion {result.config.fmax:g})")
    if first.volume is not None and last.volume is not None:
        print(f"volume    {first.volume:.4f} -> {last.volume:.4f} Å³")
        print(f"pressure  {first.pressure:.4g} -> {last.pressure:.4g} GPa")
    print(f"written   {out}")
