"""Habits a reader can rely on: nothing happens at import, the library does not print, types are not guessed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from house import architecture as arch
from house.tree import sources


def test_nothing_happens_at_import():
    complaints = [f"{name}:{line}" for name, text in sources().items() for line in arch.effects_at_import(text)]
    assert not complaints, "\n".join(complaints)


def test_library_does_not_print():
    printing = [
        f"{name}:{line}"
        for name, text in sources().items()
        if arch.top_name(name) != "cli"
        for line, _ in arch.calls_of(text, frozenset({"print"}))
    ]
    assert not printing, printing


def test_no_hasattr():
    guessing = [
        f"{name}:{line}" for name, text in sources().items() for line, _ in arch.calls_of(text, frozenset({"hasattr"}))
    ]
    assert not guessing, guessing


def test_no_keyword_pass_through():
    loose = [f"{name}:{line}" for name, text in sources().items() for line in arch.keyword_pass_through(text)]
    assert not loose, loose


def test_annotations_are_postponed():
    eager = [
        name
        for name, text in sources().items()
        if "from __future__ import annotations" not in text and any(True for _ in arch.functions(text))
    ]
    assert not eager, eager


def modules_after(statement: str) -> set[str]:
    """Names of all modules loaded by a statement in a fresh interpreter."""
    program = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("statement", ["import lamella", "import lamella.cli", "import lamella; lamella.errors"])
def test_import_is_light(statement):
    heavy = {"torch", "ase", "scipy", "matplotlib", "h5py", "dpdata"}
    assert not heavy & modules_after(statement)


def test_reading_a_model_needs_no_plots():
    assert not {"matplotlib.pyplot", "dpdata", "tensorboard"} & modules_after("import lamella; lamella.load")
