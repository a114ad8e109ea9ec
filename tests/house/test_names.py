"""Names: what the package exports, what modules may not be called, what stays documented."""

from __future__ import annotations

import importlib

import pytest

import lamella
from house import architecture as arch
from house.tree import sources

PUBLIC = {"Calculator", "__version__", "check", "datasets", "describe", "errors", "load", "predict"}


def test_public_names_are_exactly_these():
    assert set(lamella.__all__) == PUBLIC
    assert set(dir(lamella)) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_name_can_be_imported(name):
    assert getattr(lamella, name) is getattr(lamella, name)


def test_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="laod"):
        lamella.laod  # noqa: B018


@pytest.mark.parametrize("module", sorted(name for name in sources() if not name.endswith("__main__")))
def test_exported_names_exist(module):
    loaded = importlib.import_module(module)
    for name in getattr(loaded, "__all__", ()):
        assert getattr(loaded, name) is not None


def test_no_module_is_a_drawer():
    parts = {part.lstrip("_") for name in sources() for part in name.split(".") if not part.startswith("__")}
    assert not parts & arch.FORBIDDEN_NAMES


def test_public_things_are_documented():
    missing = [f"{name}:{line}" for name, text in sources().items() for line in arch.undocumented(text)]
    assert not missing, "\n".join(missing)


def test_version_is_the_projects():
    from importlib.metadata import version

    assert lamella.__version__ == version("lamella")
