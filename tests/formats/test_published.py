"""Published checkpoints go by name: the table, the folder they lie in, and what a name means to ``lamella.load``."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

import lamella
from golden_models import GOLDEN
from lamella.errors import CheckpointError, InputError
from lamella.formats.load import load
from lamella.formats.published import PUBLISHED, fetched, located, models_folder, published

NAME = "DPA-3.1-3M"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and an empty folder to work in."""
    monkeypatch.setenv("LAMELLA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "cache"


@pytest.fixture
def stored(cache):
    """A checkpoint in the place of the fetched one."""
    place = cache / "models" / "DPA-3.1-3M.pt"
    place.parent.mkdir(parents=True)
    shutil.copy(GOLDEN / "dpa3_static.pt", place)
    return place


def test_table_is_what_was_published():
    assert {name: (model.file, model.sha256[:8]) for name, model in PUBLISHED.items()} == {
        "DPA-3.3-1M": ("DPA-3.3-1M.pt", "36fe440c"),
        "DPA-3.2-5M": ("DPA-3.2-5M.pt", "87635474"),
        "DPA-3.1-3M": ("DPA-3.1-3M.pt", "86dd3a80"),
        "DPA-2.4-7M": ("dpa-2.4-7M.pt", "904eb556"),
        "DPA3-Omol-Large": ("DPA3-Omol-Large.pt", "dc4d252b"),
    }


@pytest.mark.parametrize("model", PUBLISHED.values(), ids=lambda model: model.name)
def test_entry_can_be_fetched_from_several_hosts_over_https(model):
    assert PUBLISHED[model.name] is model
    assert re.fullmatch(r"[0-9a-f]{64}", model.sha256)
    hosts = [re.fullmatch(r"https://([^/]+)/\S+\.pt", address) for address in model.sources]
    assert len({host[1] for host in hosts if host}) == len(model.sources) == 3
    assert all(address.split("/")[4] == model.name or address.split("/")[5] == model.name for address in model.sources)


def test_folder_follows_the_platform_and_the_environment_of_the_moment(monkeypatch, tmp_path):
    monkeypatch.delenv("LAMELLA_CACHE", raising=False)
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert models_folder() == tmp_path / "xdg" / "lamella" / "models"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert models_folder() == tmp_path / ".cache" / "lamella" / "models"
    monkeypatch.setenv("LAMELLA_CACHE", "~/models here")
    assert models_folder() == Path.home() / "models here" / "models"


def test_name_without_its_file_names_the_command(cache):
    assert fetched(PUBLISHED[NAME]) is None
    for ask in (load, lamella.Calculator, lambda name: lamella.predict(name, [])):
        with pytest.raises(CheckpointError, match=rf"{NAME} is a published model .*lamella models fetch {NAME}$"):
            ask(NAME)


def test_name_gives_the_fetched_file(stored):
    assert located(NAME) == located(Path(NAME)) == stored
    assert load(NAME).parameter_count() == load(stored).parameter_count()
    assert lamella.Calculator(NAME).task == "default"


def test_what_lies_on_disk_wins_over_the_name(stored):
    shutil.copytree(GOLDEN / "format1", NAME)
    assert located(NAME) == Path(NAME)
    assert load(NAME).metadata == load(GOLDEN / "format1").metadata


@pytest.mark.parametrize("name", ["dpa-3.1-3m", "DPA-3.1-3M.pt", "DPA-3.1_3M", "DPA3.1-3M"])
def test_near_miss_suggests_the_name(cache, name):
    with pytest.raises(CheckpointError, match=rf"no such file or folder \(did you mean the published model '{NAME}'\?\)"):
        load(name)
    with pytest.raises(InputError, match=rf"no published model '{name}' \(did you mean the published model '{NAME}'\?\)"):
        published(name)


def test_unknown_name_lists_those_there_are(cache):
    with pytest.raises(InputError, match=r"'water'; lamella knows DPA-3.3-1M, .*lamella models list"):
        published("water")
    with pytest.raises(CheckpointError, match=r"water: no such file or folder\. lamella loads"):
        load("water")


def test_paths_are_not_taken_for_names(stored):
    for path in (f"runs/{NAME}", f"{NAME}/step_0000100"):
        assert located(path) == Path(path)
        with pytest.raises(CheckpointError, match="no such file"):
            load(path)
