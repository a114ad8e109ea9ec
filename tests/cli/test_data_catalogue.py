"""``lamella data list``, ``show`` and ``fetch`` as a person uses them, against a server on this machine."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase.units import Hartree
from typer.testing import CliRunner

from lamella.cli import app
from lamella.data.catalogue.table import catalogue, entry
from lamella.data.read import iter_frames
from lamella.errors import FetchError, InputError
from remote.file_server import Host, serving


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LAMELLA_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "datasets"


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["data", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def comp6(folder: Path) -> bytes:
    """Two frames as COMP6 stores them: Hartree, and gradients for forces."""
    with h5py.File(folder / "x.h5", "w") as file:
        group = file.create_group("s66x8/water")
        group["species"] = np.array([b"O", b"H", b"H"])
        group["coordinates"] = np.arange(18.0).reshape(2, 3, 3)
        group["energies"] = np.array([-76.4, -76.5])
        group["forces"] = np.ones((2, 3, 3))
    return (folder / "x.h5").read_bytes()


def test_list_shows_what_fits_and_says_what_to_do():
    said = run("list", "--elements", "H,O", "--method", "pbe0")
    assert "water_pbe0ts" in said
    assert "spice2" not in said
    assert "lamella data fetch NAME brings it here" in said
    assert len(run("list").splitlines()) > len(catalogue())


def test_list_as_json_is_all_there_is():
    content = json.loads(run("list", "--json", "--collection", "dpa2"))
    assert {each["collection"] for each in content["sets"]} == {"dpa2"}
    assert content["sets"][0]["files"][0]["sources"]
    assert content["sets"][0]["folder"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("list", "--elements", "H,Xx"), "'Xx' is no chemical symbol"),
        (("list", "--collection", "dpa"), "did you mean 'dpa2'"),
        (("show", "omat"), "omat24_val"),
        (("fetch", "bpa3", "--as", "lmdb"), "as store or as extxyz"),
        (("fetch", "lambench"), "cannot be fetched by lamella"),
        (("fetch", "omat24_train"), "186 GB in 11 files"),
        (("fetch", "mlearn", "--only", "*.xyz"), "no file"),
    ],
)
def test_what_cannot_be_is_told(arguments, words):
    with pytest.raises(InputError, match=words):
        run(*arguments)


def test_show_says_which_files_are_checked():
    assert "md5:f8d0909c2623a393148435dede7d3a46" in run("show", "oc20_200k")
    assert "the first download is unverified and recorded" in run("show", "mad")
    assert json.loads(run("show", "mad", "--json"))["licence"] == "CC BY 4.0"


def test_fetch_brings_reads_and_records(cache, tmp_path):
    with serving(Host(comp6(tmp_path))) as host:
        said = run("fetch", "s66x8_wb97x", "--from", host.url, "--as", "extxyz")
        assert "UNVERIFIED, recorded now" in said
        assert "this first download is unverified" in said
        assert "licence: MIT" in said
        assert "cite: Smith et al." in said
        assert "(2 frames, where 528 were expected)" in said
        (cache / "s66x8_wb97x" / "all.extxyz").unlink()
        again = run("fetch", "s66x8_wb97x", "--from", host.url)
        assert "is there already" in again
        assert "as recorded at the first fetch" in again
        assert "unverified" not in again
        assert f"all: comp6/hdf5:{cache / 's66x8_wb97x' / 's66x8.h5'}" in again
        assert len(host.asked) == 1
    assert "yes" in next(line for line in run("list").splitlines() if line.startswith("s66x8_wb97x"))
    frames = list(iter_frames(f"comp6/hdf5:{cache / 's66x8_wb97x' / 's66x8.h5'}"))
    assert float(frames[0].labels["energy"]) == pytest.approx(-76.4 * Hartree, rel=1e-14)
    np.testing.assert_allclose(frames[0].labels["forces"], -Hartree)


def test_folder_of_a_repository_is_taken_out_of_its_archive(tmp_path):
    text = '1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1 pbc="F F F"\nH 0 0 0 0 0 0\n'
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name in ("BOTNet-datasets-29e6d/dataset_3BPA/train_300K.xyz", "BOTNet-datasets-29e6d/other/x.xyz"):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    with serving(Host(stream.getvalue())) as host:
        said = run("fetch", "bpa3", "--from", host.url, "--to", tmp_path, "--as", "store")
    assert f"wrote {tmp_path / 'bpa3' / 'train_300K.store'} (1 frames, where 500 were expected)" in said
    assert [path.name for path in (tmp_path / "bpa3" / "data").iterdir()] == ["train_300K.xyz"]


def test_several_files_come_from_a_folder_of_ones_own(tmp_path):
    frames = [
        {
            "structure": {
                "lattice": {"matrix": np.eye(3).tolist()},
                "sites": [{"species": [{"element": "Li", "occu": 1}], "xyz": [0.0, 0.0, 0.0]}],
            },
            "outputs": {"energy": -1.0, "forces": [[0.0] * 3], "virial_stress": [1.0] * 6},
        }
    ]
    files = {
        f"{element}_{split}.json": json.dumps(frames).encode() for element in ("Li", "Si") for split in ("train", "test")
    }
    with serving(Host(b"", files=files)) as host:
        said = run("fetch", "mlearn", "--only", "[LS]i_*", "--from", host.url, "--to", tmp_path)
        assert said.count(" fetched (") == 4
        assert f"Li_test: mlearn/json:{tmp_path / 'mlearn' / 'Li_test.json'}" in said
        assert "Mo_test" not in said
        with pytest.raises(FetchError, match=r"Ni_train\.json could not be fetched .*answers 404"):
            run("fetch", "mlearn", "--only", "Ni_train*", "--from", host.url, "--to", tmp_path)
    lock = json.loads((tmp_path / "mlearn.lock.json").read_text())
    assert sorted(lock["files"]) == sorted(files)


def test_unreadable_set_says_so(tmp_path, monkeypatch):
    content = b"CFPMD"
    files = tuple(file.model_copy(update={"checksum": None, "size": None}) for file in entry("matbench_md").files[:1])
    unread = entry("matbench_md").model_copy(update={"files": files})
    monkeypatch.setattr("lamella.data.catalogue.table.entry", lambda name: unread)
    with serving(Host(content)) as host:
        said = run("fetch", "matbench_md", "--from", host.url, "--to", tmp_path)
    assert "lamella does not read it as it is" in said


def test_published_checksum_that_does_not_match_is_refused(tmp_path):
    with serving(Host(b"not the archive")) as host, pytest.raises(FetchError, match=r"not the published file \(md5"):
        run("fetch", "oc20_200k", "--from", host.url, "--to", tmp_path)
    assert not (tmp_path / "oc20_200k" / entry("oc20_200k").files[0].path).exists()
