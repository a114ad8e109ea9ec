"""The demo's report: one self-contained page, made of what the stages left in their files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from lamella.use.demo.config import FEW, FINETUNED, PRETRAINED, SCRATCH
from lamella.use.report import figures as drawings
from lamella.use.report.figures import Curve
from lamella.use.report.page import (
    Cell,
    Html,
    figure,
    figures,
    join,
    number,
    page,
    paragraph,
    section,
    table,
    text,
    tile,
    tiles,
)
from lamella.use.report.records import Dynamics, Laws
from lamella.use.report.run import histories, read_run
from lamella.use.report.sections import dynamics, dynamics_tile, laws, laws_tile
from lamella.use.save import replacing

__all__ = ["lines_of", "verdict", "write_page"]

Errors = dict[str, dict[str, dict[str, float]]]
"""RMSE by quantity, set and model, eV/atom and eV/Å; beside the models "spread", the standard deviation of the labels."""

_QUANTITIES: Final = {"energy": "energy RMSE, meV/atom", "forces": "force RMSE, meV/Å"}

_FILES: Final = ("data", "zero_shot", "testing", "check", "md")

_SECTIONS: Final = {
    "data": "1 Two sets that cannot be merged",
    "pretraining": "2 Pre-training",
    "zero-shot": "3 Zero-shot",
    "tuning": "4 Fine-tuning beside training from scratch",
    "dynamics": "5 Molecular dynamics",
    "laws": "6 Laws of physics",
    "next": "What next",
}


def write_page(folder: Path, path: Path) -> list[str]:
    """Write the page; gives its findings in a few sentences."""
    found = {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in _FILES}
    said = verdict(found["testing"])
    with replacing(path) as file:
        file.write(page("lamella demo", _body(folder, found, said)))
    return said


def lines_of(errors: Errors) -> list[str]:
    """The tables in plain text."""
    lines = []
    for quantity, rows in errors.items():
        names = list(next(iter(rows.values())))
        cells = [["", *names], *([name, *(f"{1e3 * row[column]:.1f}" for column in names)] for name, row in rows.items())]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines.append(_QUANTITIES[quantity])
        lines += ["  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return lines


def verdict(testing: Errors) -> list[str]:
    """What the comparison on water shows, whichever way it went."""
    (errors,), (energies,) = testing["forces"].values(), testing["energy"].values()
    spread, tuned, scratch = errors["spread"], errors["fine-tuned"], errors["from scratch"]
    zero = min(value for model, value in errors.items() if model.startswith("zero-shot"))
    said = [
        f"Force error on water that nothing was trained on: {number(1e3 * zero)} meV/Å zero-shot, {number(1e3 * tuned)} "
        f"fine-tuned, {number(1e3 * scratch)} from scratch; the spread of the forces is {number(1e3 * spread)}. Energy "
        f"error: {number(1e3 * energies['fine-tuned'])} meV/atom fine-tuned, {number(1e3 * energies['from scratch'])} from "
        "scratch."
    ]
    if tuned < scratch:
        both = "" if energies["fine-tuned"] < energies["from scratch"] else ", but not for energies"
        said.append(
            f"Pre-training paid for forces{both}: from the same labels in as many steps their error is "
            f"{scratch / tuned:.1f} times smaller. That is one run of each, not a law."
        )
    else:
        said.append(
            "Pre-training did not pay here: training from scratch gave forces as good or better. With so short a "
            "pre-training, on molecules alone, that can happen; more steps of it (pretrained/config.yaml) are the first "
            "thing to try."
        )
    if zero > 0.5 * spread:
        said.append(
            "Without fine-tuning the pre-trained network is of little use for this water: it never saw two molecules touch."
        )
    return said


def _body(folder: Path, found: dict[str, Any], said: Sequence[str]) -> list[Html]:
    md, checked = Dynamics.model_validate(found["md"]), Laws.model_validate(found["check"])
    return [
        _header(found, md, checked, said),
        _data(found["data"]),
        _pretraining(folder),
        _zero_shot(found["zero_shot"]),
        _tuning(folder, found["testing"]),
        _renamed(dynamics(md), "Molecular dynamics", _SECTIONS["dynamics"]),
        _renamed(laws(checked), "Laws of physics", _SECTIONS["laws"]),
        _next(folder),
        Html("<footer>Written by <code>lamella demo</code>. This page is one file: keep it, send it, print it.</footer>"),
    ]


def _renamed(part: Html, before: str, after: str) -> Html:
    return Html(part.replace(f"<h2>{before}</h2>", f"<h2>{text(after)}</h2>", 1))


def _header(found: dict[str, Any], md: Dynamics, checked: Laws, said: Sequence[str]) -> Html:
    (errors,) = found["testing"]["forces"].values()
    spread = errors["spread"]
    shown = [
        tile(
            "Fine-tuned",
            number(1e3 * errors["fine-tuned"]),
            "meV/Å",
            f"force error on water, {_share(errors['fine-tuned'], spread)}",
        ),
        tile(
            "From scratch",
            number(1e3 * errors["from scratch"]),
            "meV/Å",
            f"same labels, same steps, {_share(errors['from scratch'], spread)}",
        ),
        dynamics_tile(md),
        laws_tile(checked),
    ]
    links = "\n".join(f'<a href="#{key}">{text(title)}</a>' for key, title in _SECTIONS.items())
    return join(
        [
            Html("<header>"),
            Html("<h1>The life of a large atomistic model, in miniature</h1>"),
            paragraph(
                "A network learns from two sources of labels at once, is tried on something it never saw, is fine-tuned "
                "with a few labels; a model with more of them, lamella-mini, runs molecular dynamics. "
                "Large models live the same life, with millions of "
                "structures and weeks of GPUs.",
                "lead",
            ),
            *[paragraph(line) for line in said],
            tiles(shown),
            Html(f"<nav>{links}</nav>"),
            Html("</header>"),
        ]
    )


def _share(error: float, spread: float) -> str:
    return f"{100 * error / spread:.0f} % of the forces' spread"


def _data(data: dict[str, Any]) -> Html:
    return section(
        "data",
        _SECTIONS["data"],
        [
            paragraph(
                "The sets molecules_gfn2 and molecules_pbe hold the same structures of eleven small molecules. One is "
                "labelled with GFN2-xTB, a quick approximate method, the other with PBE, a density functional. About the "
                f"energy of the same structure they disagree by {abs(data['energy_gap']):.0f} eV per atom, since each "
                f"method counts from a zero of its own, and about forces by {1e3 * data['forces_rms_difference']:.0f} meV/Å "
                f"(root mean square; the forces' own spread is {1e3 * data['forces_std']:.0f}). As one set they would "
                "contradict each other; as two tasks of one model they need not agree."
            ),
            paragraph(
                f"Water (water_gfn2) stands for what a user brings: liquid and clusters, of which only {data['few']} "
                "labelled structures may be used. All labels came with lamella; a check of them found "
                f"{data['problems'] or 'no'} problem{'' if data['problems'] == 1 else 's'}."
            ),
            table(
                ["set", "structures to learn from"],
                [[name, count] for name, count in data["frames"].items()] + [["of water, used", data["few"]]],
            ),
        ],
    )


def _force_curves(key: str, runs: dict[str, Path]) -> Html:
    """Validation force errors of some runs, by task where a run has several."""
    lines: list[Curve] = []
    for name, run in runs.items():
        for history in histories(read_run(run).log):
            if history.split == "valid" and "forces" in history.values:
                label = name or history.task
                lines.append(Curve(label, history.step, 1e3 * np.asarray(history.values["forces"]), len(lines)))
    return drawings.curves(key, lines, "step", "force error, meV/Å", log=True)


def _pretraining(folder: Path) -> Html:
    return section(
        "pretraining",
        _SECTIONS["pretraining"],
        [
            paragraph(
                "One network for both tasks. Each step draws one task and a batch of its structures. What describes the "
                "surroundings of an atom is shared; the last layers (a head) and the energies per element belong to the "
                "task."
            ),
            figures(
                [
                    figure(
                        _force_curves("pretraining-forces", {"": folder / PRETRAINED}),
                        "Root mean square force error on validation structures, which are not fitted, for each task.",
                    )
                ]
            ),
        ],
    )


def _tables(errors: Errors) -> list[Html]:
    parts = []
    for quantity, rows in errors.items():
        names = list(next(iter(rows.values())))
        shown: list[list[Cell]] = [[name, *(1e3 * row[column] for column in names)] for name, row in rows.items()]
        parts += [Html(f"<h3>{text(_QUANTITIES[quantity])}</h3>"), table(["set", *names], shown)]
    return parts


def _zero_shot(errors: Errors) -> Html:
    return section(
        "zero-shot",
        _SECTIONS["zero-shot"],
        [
            paragraph(
                "Both heads on all test sets. Nothing is trained; energies per element are fitted to training structures of "
                "each set, since each method has its own zero. On its own labels a head should do well, on the other "
                "method's about as badly as the methods disagree. The last set is water: liquid and clusters, while "
                "pre-training saw single molecules. Beside the errors: the spread (std) of the labels, which is the error "
                "of a model that knows nothing."
            ),
            *_tables(errors),
        ],
    )


def _tuning(folder: Path, errors: Errors) -> Html:
    return section(
        "tuning",
        _SECTIONS["tuning"],
        [
            paragraph(
                "Two runs from the same labelled structures of water. One starts from the pre-trained network and its head "
                "for GFN2-xTB, the method of these labels; the other from random numbers. All else is the same: "
                "architecture, loss, batches, learning rate and its schedule, number of steps."
            ),
            figures(
                [
                    figure(
                        _force_curves("tuning-forces", {"fine-tuned": folder / FINETUNED, "from scratch": folder / SCRATCH}),
                        "Root mean square force error on the few validation structures of water while training.",
                    )
                ]
            ),
            paragraph("Afterwards, on test structures that come from simulations of their own:"),
            *_tables(errors),
        ],
    )


def _next(folder: Path) -> Html:
    name = folder.name
    rows = [
        [
            "all about the fine-tuned model: parity plots, worst structures, manifest",
            f"lamella report {name}/{FINETUNED} embedded:water_gfn2:test",
        ],
        [
            "the same with a model that knows most of the periodic table (and was trained on this water, too)",
            f"lamella finetune lamella-mini {name}/{FEW}",
        ],
        ["which of its tasks suits your labels", "lamella heads lamella-mini mydata.xyz"],
        ["your own data instead of water", f"lamella finetune {name}/{PRETRAINED} mydata.xyz"],
        ["longer dynamics", "lamella md lamella-mini embedded:water_box --task gfn2 --time 10"],
    ]
    return section("next", _SECTIONS["next"], [table(["to see", "command"], rows)])
