"""The demo from its first stage to its last: which folder, in which order, what is said where something fails."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from lamella.errors import LamellaError
from lamella.train.stop import Interrupted
from lamella.use.demo.config import REPORT, RESULTS, SETTINGS, Demo, Show
from lamella.use.demo.work import Work

__all__ = ["free_folder", "run_demo"]


def run_demo(run: Path, show: Show, demo: Demo | None = None) -> Path:
    """Pre-train on two tasks, test without training, fine-tune beside training from scratch, simulate, report.

    Args:
        run: folder to write; where it is taken, the next free one (``run-2``, ...); an unfinished demo in it goes on.
        show: where words and progress go.
        demo: what to do.

    Returns:
        The report.

    Raises:
        Interrupted: training was asked to stop; the same command goes on with it.
        LamellaError: a stage failed; the message says which, and what was done is kept.
    """
    demo = demo or Demo()
    folder, unfinished = free_folder(run, demo)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SETTINGS).write_text(demo.words, encoding="utf-8")
    show.line(
        "The life of a large atomistic model in miniature: about four minutes of one CPU core. Everything goes to "
        f"{folder}/."
    )
    if unfinished:
        show.line("That folder holds an unfinished demo: going on with it. What is done is not done again.")
    stages = Work(folder, show, demo).stages
    failures: list[str] = []
    began = time.perf_counter()
    for number, (name, stage) in enumerate(stages.items(), start=1):
        result = RESULTS.get(name)
        if result is not None and (folder / result).exists():
            continue
        try:
            with _one_thread():
                trouble = stage(f"[{number}/{len(stages)}]")
        except Interrupted as stopped:
            again = f"{stopped} Or run `lamella demo` again: it goes on where it stopped."
            raise Interrupted(again, stopped.exit_code) from None
        except LamellaError as error:
            raise LamellaError(
                f"stage {number} ({name}) of the demo failed: {error} What was done is kept in {folder}/."
            ) from error
        failures += [f"stage {number} ({name}): {trouble}"] if trouble else []
    path = folder / REPORT
    if failures:
        raise LamellaError(
            f"the demo ran to its end, but not all is well: {'; '.join(failures)}. The report, {path}, says more."
        )
    show.line(f"\nDone in {(time.perf_counter() - began) / 60:.1f} minutes. Open the report in a browser: {path}")
    return path


def free_folder(run: Path, demo: Demo) -> tuple[Path, bool]:
    """The first of ``run``, ``run-2``, ``run-3``, ... that is free or holds this demo, unfinished; and whether it does.

    Nothing of anybody's is ever overwritten.
    """
    for number in itertools.count(1):
        folder = run if number == 1 else run.with_name(f"{run.name}-{number}")
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return folder, False
        settings = folder / SETTINGS
        if (
            settings.is_file()
            and not (folder / REPORT).exists()
            and settings.read_text(encoding="utf-8", errors="replace") == demo.words
        ):
            return folder, True
    raise AssertionError("unreachable: counting has no end")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Inside the block torch computes on one core.

    For graphs this small more threads gain little, and on a busy machine they wait for each other (ten times slower was
    seen); and so the numbers do not depend on how many cores there are.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
