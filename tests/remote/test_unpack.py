"""Archives are unpacked into their folder and nowhere else, wholly or not at all."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from lamella.errors import FetchError, InputError
from lamella.remote import unpack as module
from lamella.remote.unpack import Unpacked, unpack

FILES = {"set/a.txt": b"alpha", "set/deep/b.txt": b"beta" * 1000, "other/c.txt": b"gamma"}


def tarred(path: Path, files: dict[str, bytes], *special: tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for entry in special:
            archive.addfile(entry)
    return path


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_every_kind_of_archive_gives_its_files(tmp_path, mode):
    path = tmp_path / "archive.bin"
    zipped(path, FILES) if mode == "zip" else tarred(path, FILES, mode=mode)
    assert unpack(path, tmp_path / "out") == Unpacked(3, 4010, 0)
    assert content(tmp_path / "out") == FILES
    assert {entry.name for entry in tmp_path.iterdir()} == {"archive.bin", "out"}


@pytest.mark.parametrize("inside", ["set", "*", "s*"])
def test_one_folder_of_the_archive_is_taken_alone(tmp_path, inside):
    path = tarred(tmp_path / "a.tar", {name: text for name, text in FILES.items() if inside == "set" or name[0] == "s"})
    unpack(path, tmp_path / "out", inside)
    assert content(tmp_path / "out") == {"a.txt": b"alpha", "deep/b.txt": b"beta" * 1000}


def test_folder_that_is_not_in_the_archive_is_named(tmp_path):
    with pytest.raises(FetchError, match="no files below 'missing'"):
        unpack(tarred(tmp_path / "a.tar", FILES), tmp_path / "out", "missing")
    assert not (tmp_path / "out").exists()


HOSTILE = ["../evil", "set/../../evil", "/etc/evil", "..", "C:/evil", "set\\..\\..\\evil"]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_name_that_leads_out_refuses_the_whole_archive(tmp_path, name, kind):
    files = {"good": b"good", name: b"evil"}
    deep = tmp_path / "x" / "y"
    deep.mkdir(parents=True)
    path = tarred(deep / "a.bin", files) if kind == "tar" else zipped(deep / "a.bin", files)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(FetchError, match="leads out of its folder"):
        unpack(path, deep / "out")
    assert set(tmp_path.rglob("*")) == before


def test_hostile_name_is_refused_outside_the_wanted_folder_too(tmp_path):
    with pytest.raises(FetchError, match="leads out"):
        unpack(tarred(tmp_path / "a.tar", FILES | {"../evil": b""}), tmp_path / "out", "set")


def test_links_and_devices_are_never_made(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("mine")
    device = tarfile.TarInfo("null")
    device.type = tarfile.CHRTYPE
    special = [link("set/soft", str(secret)), link("set/hard", "set/a.txt", tarfile.LNKTYPE), device]
    found = unpack(tarred(tmp_path / "a.tar", FILES, *special), tmp_path / "out")
    assert found.left_out == 3
    assert content(tmp_path / "out") == FILES


def test_file_written_through_a_link_stays_inside(tmp_path):
    (tmp_path / "victim").mkdir()
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(link("door", str(tmp_path / "victim")))
        entry = tarfile.TarInfo("door/evil")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"evil"))
    unpack(path, tmp_path / "out")
    assert not any((tmp_path / "victim").iterdir())
    assert content(tmp_path / "out") == {"door/evil": b"evil"}


def test_symbolic_link_of_a_zip_file_is_left_out(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good", b"good")
        entry = zipfile.ZipInfo("door")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc")
    assert unpack(path, tmp_path / "out").left_out == 1
    assert content(tmp_path / "out") == {"good": b"good"}


def test_file_that_is_a_folder_too_is_refused(tmp_path):
    with pytest.raises(FetchError, match="a file and a folder at once"):
        unpack(tarred(tmp_path / "a.tar", {"a": b"1", "a/b": b"2"}), tmp_path / "out")


@pytest.mark.parametrize("kind", ["tar", "zip", "headers"])
def test_bomb_is_refused_before_it_fills_the_disk(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(module, "MOST_FREE", 1_000_000)
    zeros = bytes(30_000_000)
    if kind == "zip":
        path = zipped(tmp_path / "a.zip", {"zeros": zeros})
    elif kind == "tar":
        path = tarred(tmp_path / "a.tar.xz", {"zeros": zeros}, mode="w:xz")
    else:
        path = tarred(tmp_path / "a.tar.xz", {"x" * 30_000_000: b""}, mode="w:xz")
    with pytest.raises(FetchError, match="far more than its size explains"):
        unpack(path, tmp_path / "out")
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name}


def test_zip_that_lies_about_its_sizes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_FREE", 1_000_000)
    path = zipped(tmp_path / "a.zip", {"zeros": bytes(30_000_000)})
    true, small = (30_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(true, small))
    with pytest.raises(FetchError):
        unpack(path, tmp_path / "out")
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.zip"}


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_FILES", 2)
    with pytest.raises(FetchError, match="2 files"):
        unpack(tarred(tmp_path / "a.tar", FILES), tmp_path / "out")


def test_more_than_fits_on_the_disk_is_refused(tmp_path, monkeypatch):
    usage = module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(InputError, match="are to be unpacked and"):
        unpack(tarred(tmp_path / "a.tar", FILES), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("cut", [0, 10, 600, -200])
@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2", "zip"])
def test_damaged_archive_is_refused(tmp_path, mode, cut):
    files = {"a": os.urandom(5000)}
    path = zipped(tmp_path / "a", files) if mode == "zip" else tarred(tmp_path / "a", files, mode=mode)
    path.write_bytes(path.read_bytes()[: cut or None] if cut else b"")
    with pytest.raises(FetchError, match=r"damaged|no files"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2", "zip"])
def test_flipped_bit_is_found(tmp_path, mode):
    files = {"a": os.urandom(5000)}
    path = zipped(tmp_path / "a", files) if mode == "zip" else tarred(tmp_path / "a", files, mode=mode)
    text = bytearray(path.read_bytes())
    text[1000] ^= 1
    path.write_bytes(bytes(text))
    with pytest.raises(FetchError, match="damaged"):
        unpack(path, tmp_path / "out")
