"""Imports go down or stay in the folder, never up, never in a circle; also inside functions."""

from __future__ import annotations

import tomllib

from house import architecture as arch
from house.tree import ROOT, sources

MODULES = frozenset(sources())
IMPORTS = {name: arch.imports(text, name, MODULES) for name, text in sources().items()}

STANDARD_NAMES = {"ase": "ase", "yaml": "pyyaml", "sklearn": "scikit-learn"}
"""Import name -> name of the distribution, where they differ."""


def test_imports_go_down():
    complaints = [line for found in IMPORTS.values() for line in arch.floor_violations(found)]
    assert not complaints, "\n".join(complaints)


def test_no_import_cycles():
    # Commands import what they run inside functions, to start quickly; nothing below imports cli (test_imports_go_down), so
    # only what cli imports at its top could close a circle.
    edges = {
        name: {
            each.imported
            for each in found
            if each.imported != name and not (arch.top_name(name) == "cli" and each.inside_function)
        }
        for name, found in IMPORTS.items()
    }
    assert not arch.cycles(edges)


def test_every_top_level_name_has_a_floor():
    assert {arch.top_name(name) for name in MODULES} - {""} <= set(arch.FLOORS)


def test_imported_packages_are_declared():
    import sys

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names, extra = (
        {requirement.split(">")[0].split("=")[0].split("[")[0].strip().lower() for requirement in declared}
        for declared in (project["dependencies"], project["optional-dependencies"]["explain"])
    )
    used = {name for text in sources().values() for name in arch.third_party(text)} - sys.stdlib_module_names
    assert {STANDARD_NAMES.get(name, name) for name in used} <= names | extra
    unused = names - {STANDARD_NAMES.get(name, name) for name in used}
    # torch.utils.tensorboard imports tensorboard on our behalf.
    assert unused <= {"tensorboard"}, f"declared, never imported: {unused}"


def test_constraints_pin_exact_versions_and_nothing_else():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    for line in lines:
        name, version = line.split("==")
        assert name.strip() == name
        assert version.strip() == version
        assert "+" not in version
        assert "*" not in version
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*declared["dependencies"], *(name for extra in declared["optional-dependencies"].values() for name in extra)]
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    assert {requirement.split(">")[0].lower().replace("_", "-") for requirement in wanted} <= pinned
