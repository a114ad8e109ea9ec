"""The catalogue says what is known and nothing else; fetching a set ends with the right files or with a clear message."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from lamella.data.catalogue import fetch as module
from lamella.data.catalogue.entry import Entry, File
from lamella.data.catalogue.fetch import FetchedFile, fetch, selected
from lamella.data.catalogue.parts import convert, part_paths
from lamella.data.catalogue.table import COLLECTIONS, catalogue, entry, find
from lamella.data.deposits import READERS
from lamella.data.keys import LabelKeys
from lamella.data.source import open_frames
from lamella.errors import DataError, FetchError, InputError
from lamella.remote import download
from lamella.remote.checksum import folder_digest
from remote.file_server import Host, serving

XYZ = b'2\nProperties=species:S:1:pos:R:3:force:R:3 TotEnergy=-1.5 pbc="F F F"\nH 0 0 0 0.1 0 0\nH 0 0 0.8 -0.1 0 0\n'


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setenv("LAMELLA_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def host():
    with serving(Host(b"", files={"a.xyz": XYZ, "b.xyz": XYZ * 2})) as running:
        yield running


def packed(files: dict[str, bytes], *special: tarfile.TarInfo) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in special:
            archive.addfile(info)
    return stream.getvalue()


def a_set(*files: File, **more: object) -> Entry:
    base = {
        "name": "toy",
        "collection": "mini",
        "about": "a toy",
        "method": "PBE",
        "licence": "CC0",
        "citation": "-",
        "page": "-",
    }
    how = {} if files and more.get("parts") else {"how": "Ask for it."}
    return Entry.model_validate(base | how | {"files": files} | more)


def a_file(host: Host, path: str = "a.xyz", **more: object) -> File:
    remote = more.pop("remote", path)
    return File.model_validate({"path": path, "sources": [f"{host.url}{remote}"]} | more)


def digest(content: bytes, kind: str = "sha256") -> str:
    return f"{kind}:{hashlib.new(kind, content).hexdigest()}"


# The table


@pytest.mark.parametrize("name", catalogue())
def test_entry_says_where_it_comes_from_and_under_which_licence(name):
    found = entry(name)
    assert found.licence
    assert found.citation
    assert re.match(r"https?://", found.page)
    assert found.about.endswith(".")
    assert found.collection in COLLECTIONS
    assert found.files or len(found.how) > 20
    for part in found.parts.values():
        LabelKeys(**part.keys)
        for pattern in part.paths:
            prefix = re.match(r"([a-z0-9_]+/[a-z0-9-]+):", pattern)
            assert prefix is None or prefix[1] in READERS
            path = pattern.rpartition(":")[2]
            assert any(
                path == file.path or path.split("/")[0] == file.path or "*" in path or "#" in path for file in found.files
            )


def test_papers_table_is_all_there():
    text = " ".join(found.notes + found.about for found in catalogue().values())
    words = (
        "Alloy Cathode-P Cluster-P Drug FerroEle-P OC2M SSE-PBE-P SemiCond-P H2O-PD AgUAu-PBE AlUMgUCu Cu Sn Ti V W C12H26",
        "HfO2 Cathode-D Cluster-D FerroEle-D SSE-PBE-D SSE-PBESol SemiCond-D H2O-DPLR H2O-SCAN0 H2O-PBE0TS H2O-PBE0TS-MD",
        "AgAu-PBED3 AlMgCu-D In2Se3",
    )
    tasks = " ".join(words).split()
    assert len(tasks) == 18 + 13, "of its 33, ANI-1x and Transition-1x are entries of their own"
    missing = [task for task in tasks if not re.search(rf"(?<![\w-]){re.escape(task)}(?![\w-])", text)]
    assert not missing
    assert {"ani1x", "transition1x"} <= set(catalogue())


def test_small_sets_are_all_there():
    mini = [found.name for found in catalogue().values() if found.collection == "mini"]
    assert len(mini) == 29
    assert all(entry(name).files and entry(name).parts for name in mini)


def test_repositories_are_named_with_a_state():
    for found in catalogue().values():
        for file in found.files:
            for address in file.sources:
                if "githubusercontent" in address or "codeload" in address:
                    assert re.search(r"/[0-9a-f]{40}(/|$)", address), address
                assert file.stable or "codeload" in address or "/heads/" in address
                assert ("codeload" in address) <= file.unpack


def test_sets_are_found_by_element_and_method():
    fits, unknown = find(["H", "O"], "pbe0")
    assert "water_pbe0ts" in [found.name for found in fits]
    assert all({"H", "O"} <= set(found.elements) and "PBE0" in found.method for found in fits)
    assert not any(found.elements for found in unknown)
    assert {found.name for found in find(method="wb97x orca")[0]} >= {"bpa3", "transition1x"}
    assert all(found.files and found.parts for found in find(readable=True)[0])
    assert {found.collection for found in find(collection="dpa2")[0]} == {"dpa2"}


@pytest.mark.parametrize(
    ("name", "hint"), [("omat", "but omat24_val"), ("mptrij", "did you mean 'mptrj'"), ("SPICE2", "but spice2")]
)
def test_unknown_name_suggests_one(name, hint):
    with pytest.raises(InputError, match=f"{name}.*{hint}"):
        entry(name)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"path": "../a"}, "plain relative path"),
        ({"path": "/a"}, "plain relative path"),
        ({"path": "a//b"}, "plain relative path"),
        ({"path": ".hidden"}, "plain relative path"),
        ({"path": "a", "sources": ["file:///etc/passwd"]}, "no address"),
        ({"path": "a", "checksum": "sha256:12"}, "hexadecimal"),
        ({"path": "a", "checksm": "x"}, "Extra inputs"),
    ],
)
def test_file_that_leads_astray_is_no_entry(wrong, words):
    with pytest.raises(ValidationError, match=words):
        File.model_validate({"sources": ["https://a.example/b"]} | wrong)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"elements": "H Xx"}, "'Xx' is no chemical symbol"),
        ({"elements": "H", "element_count": 2}, "disagree"),
        ({"how": ""}, "must say how"),
    ],
)
def test_entry_that_contradicts_itself_is_none(wrong, words):
    with pytest.raises(ValidationError, match=words):
        a_set(**wrong)


# Fetching


def test_published_checksum_is_checked(host, tmp_path):
    right = a_set(a_file(host, checksum=digest(XYZ)), a_file(host, "b.xyz", checksum=digest(XYZ * 2, "md5")))
    done = fetch(right, tmp_path)
    assert [item.state for item in done] == ["checked", "checked"]
    assert (tmp_path / "toy" / "a.xyz").read_bytes() == XYZ
    wrong = a_set(a_file(host, checksum=digest(b"other")))
    with pytest.raises(FetchError, match=r"toy/a\.xyz could not be fetched .*not the published file"):
        fetch(wrong, tmp_path / "b")
    assert not (tmp_path / "b" / "toy" / "a.xyz").exists()


def test_first_download_is_recorded_and_later_ones_are_held_to_it(host, tmp_path):
    toy = a_set(a_file(host))
    (first,) = fetch(toy, tmp_path)
    assert (first.state, first.was_there) == ("unverified", False)
    record = json.loads((tmp_path / "toy.lock.json").read_text())
    assert record["files"]["a.xyz"] == {"sha256": digest(XYZ)[7:], "size": len(XYZ), "folder": None, "checked": False}
    (second,) = fetch(toy, tmp_path)
    assert (second.state, second.was_there, len(host.asked)) == ("recorded", True, 1)
    first.path.unlink()
    assert fetch(toy, tmp_path)[0] == second._replace(was_there=False)
    first.path.unlink()
    host.files["a.xyz"] = XYZ.replace(b"-1.5", b"-1.6")
    with pytest.raises(
        FetchError, match=r"not the recorded file .* If its host changed it on purpose, move .*toy\.lock\.json"
    ):
        fetch(toy, tmp_path)
    assert not first.path.exists()


def test_record_holds_another_machine_to_the_same_bytes(host, tmp_path):
    toy = a_set(a_file(host))
    fetch(toy, tmp_path / "one")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "toy.lock.json").write_bytes((tmp_path / "one" / "toy.lock.json").read_bytes())
    assert fetch(toy, tmp_path / "two")[0].state == "recorded"


def test_file_that_was_changed_on_disk_is_found_and_replaced_when_told(host, tmp_path):
    toy = a_set(a_file(host))
    (item,) = fetch(toy, tmp_path)
    item.path.write_bytes(b"mine")
    with pytest.raises(FetchError, match=r"it is there but is not the recorded toy/a\.xyz .*--overwrite"):
        fetch(toy, tmp_path)
    assert item.path.read_bytes() == b"mine"
    assert fetch(toy, tmp_path, overwrite=True)[0].path.read_bytes() == XYZ


def test_files_that_came_stay_when_a_later_one_fails(host, tmp_path):
    toy = a_set(a_file(host), a_file(host, "missing.xyz"), a_file(host, "b.xyz"))
    with pytest.raises(FetchError, match=r"toy/missing\.xyz could not be fetched .*answers 404"):
        fetch(toy, tmp_path)
    host.files["missing.xyz"] = XYZ
    assert [item.was_there for item in fetch(toy, tmp_path)] == [True, False, False]


def test_interrupted_archive_goes_on_where_it_ended(tmp_path):
    content = packed({"top/data/x.npy": np.random.default_rng(0).bytes(2_000_000)})
    with serving(Host(content, cuts=[700_000, 0, 0, 0])) as host:
        toy = a_set(File(path="data", sources=(host.url,), unpack=True, inside="*/data"))
        with pytest.raises(FetchError, match=r"0\.7 MB are kept"):
            fetch(toy, tmp_path)
        (item,) = fetch(toy, tmp_path)
        assert host.asked[-1]["Range"] == "bytes=700000-"
    assert item == FetchedFile(tmp_path / "toy" / "data", len(content), digest(content)[7:], False, "unverified", 1)
    assert [path.name for path in (tmp_path / "toy" / "data").iterdir()] == ["x.npy"]


def test_archive_is_unpacked_recorded_and_left_alone_afterwards(host, tmp_path):
    host.files["pack.tar.gz"] = packed({"a/x": b"1", "a/y": b"2"})
    toy = a_set(a_file(host, "data", remote="pack.tar.gz", unpack=True))
    (item,) = fetch(toy, tmp_path)
    assert sorted(path.name for path in (tmp_path / "toy").iterdir() if not path.name.endswith(".lock")) == ["data"]
    record = json.loads((tmp_path / "toy.lock.json").read_text())["files"]["data"]
    assert record["folder"] == folder_digest(item.path)
    asked = len(host.asked)
    (again,) = fetch(toy, tmp_path)
    assert again == item._replace(was_there=True, state="recorded")
    assert len(host.asked) == asked
    (item.path / "a" / "x").write_bytes(b"3")
    with pytest.raises(FetchError, match=r"may not be what it should be \(.*another digest"):
        fetch(toy, tmp_path)
    assert (fetch(toy, tmp_path, overwrite=True)[0].path / "a" / "x").read_bytes() == b"1"


def test_repacked_archive_with_the_same_content_is_the_same(host, tmp_path):
    host.files["p.tar.gz"] = packed({"r-1/a": b"1", "r-1/b": b"2"})
    toy = a_set(a_file(host, "data", remote="p.tar.gz", unpack=True, inside="*", stable=False))
    (item,) = fetch(toy, tmp_path)
    module.shutil.rmtree(item.path)
    host.files["p.tar.gz"] = packed({"r-2/b": b"2", "r-2/a": b"1"})
    assert fetch(toy, tmp_path)[0].state == "recorded"
    module.shutil.rmtree(item.path)
    host.files["p.tar.gz"] = packed({"r-2/b": b"2", "r-2/a": b"3"})
    with pytest.raises(FetchError, match="data is not what was fetched before"):
        fetch(toy, tmp_path)
    assert not item.path.exists()


def test_hostile_archive_leaves_nothing(host, tmp_path):
    link = tarfile.TarInfo("ok/door")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    host.files["evil.tar.gz"] = packed({"ok/a": b"1", "../../evil": b"2"}, link)
    toy = a_set(a_file(host, "data", remote="evil.tar.gz", unpack=True))
    with pytest.raises(FetchError, match=r"'\.\./\.\./evil', which leads out"):
        fetch(toy, tmp_path / "deep" / "er")
    assert not (tmp_path / "deep" / "er" / "toy" / "data").exists()
    assert not (tmp_path / "deep" / "evil").exists()
    assert not (tmp_path / "evil").exists()


def test_links_in_an_archive_are_told(host, tmp_path):
    link = tarfile.TarInfo("door")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    host.files["p.tar.gz"] = packed({"a": b"1"}, link)
    notes: list[str] = []
    fetch(a_set(a_file(host, "data", remote="p.tar.gz", unpack=True)), tmp_path, on_note=notes.append)
    assert any("1 links or special files in it are left out" in note for note in notes)


def test_address_given_by_hand_is_a_file_or_a_folder(host, tmp_path):
    away = "https://nowhere.invalid/"
    toy = a_set(File(path="a.xyz", sources=(away + "q",)), File(path="b.xyz", sources=(away + "r",)))
    with pytest.raises(InputError, match="--from names one file, and 2 are to be fetched"):
        fetch(toy, tmp_path, source=f"{host.url}a.xyz")
    assert len(fetch(toy, tmp_path, source=host.url)) == 2
    one = fetch(toy, tmp_path / "x", files=[toy.files[0]], source=f"{host.url}b.xyz")
    assert one[0].path.read_bytes() == XYZ * 2


def test_file_put_there_by_hand_is_taken(host, tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "a.xyz").write_bytes(XYZ)
    assert fetch(a_set(a_file(host)), tmp_path)[0].was_there
    assert host.asked == []


def test_large_sets_are_not_fetched_by_accident():
    large = entry("omat24_train")
    with pytest.raises(InputError, match=r"186 GB in 11 files .*--only PATTERN, or say --all"):
        selected(large)
    assert [file.path for file in selected(large, "rattled-300*")] == ["rattled-300", "rattled-300-subsampled"]
    assert len(selected(large, everything=True)) == 11
    with pytest.raises(InputError, match="no file 'missing'; it has rattled-1000"):
        selected(large, "missing")


def test_what_is_too_large_for_the_disk_is_refused_before_anything_comes(host, tmp_path):
    toy = a_set(a_file(host, size=10**16), a_file(host, "b.xyz"))
    with pytest.raises(InputError, match="are to come and"):
        fetch(toy, tmp_path)
    assert host.asked == []


def test_set_without_files_says_how_to_get_it():
    with pytest.raises(InputError, match=r"lambench cannot be fetched by lamella\. Its card .*aissquare"):
        selected(entry("lambench"))


@pytest.mark.parametrize("text", ["{", '{"name": "toy", "format": 2}', '{"name": "other"}', '{"name": "toy", "x": 1}'])
def test_broken_record_is_named(host, tmp_path, text):
    (tmp_path / "toy.lock.json").write_text(text)
    with pytest.raises(FetchError, match=r"toy\.lock\.json: "):
        fetch(a_set(a_file(host)), tmp_path)
    assert host.asked == []


# Reading what was fetched


def test_parts_are_read_with_their_keys_and_written_as_stores(host, tmp_path):
    parts = {"train": {"paths": ["*.xyz"], "keys": {"energy": "TotEnergy", "forces": "force"}, "frames": 3}}
    toy = a_set(a_file(host), a_file(host, "b.xyz"), parts=parts)
    fetch(toy, tmp_path)
    (written,) = convert(toy, tmp_path / "toy", "store")
    assert (written.frames, written.expected) == (3, 3)
    frames = open_frames(written.path)
    assert [float(frames[index].labels["energy"]) for index in range(3)] == [-1.5] * 3
    assert convert(toy, tmp_path / "toy", "store") == [], "what is written stays"
    assert open_frames(convert(toy, tmp_path / "toy", "extxyz")[0].path).content_hash == frames.content_hash


def test_wrong_key_leaves_no_store(host, tmp_path):
    toy = a_set(a_file(host), parts={"all": {"paths": ["a.xyz"], "keys": {"energy": "E0"}}})
    fetch(toy, tmp_path)
    with pytest.raises(DataError, match=r"keys\.energy: no frame"):
        convert(toy, tmp_path / "toy", "store")
    assert not (tmp_path / "toy" / "all.store").exists()


def test_part_paths_keep_their_format_and_group(tmp_path):
    for name in ("a/x.json", "a/y.json", "b.h5"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    toy = a_set(
        File(path="b.h5", sources=("https://a.example/b",)),
        parts={
            "j": {"paths": ["mlearn/json:a/*.json"]},
            "h": {"paths": ["transition1x/hdf5:b.h5#/train"]},
            "n": {"paths": ["c"]},
        },
    )
    found = {
        name: [path.replace(str(tmp_path), "~") for path in part_paths(tmp_path, part)] for name, part in toy.parts.items()
    }
    assert found == {
        "j": ["mlearn/json:~/a/x.json", "mlearn/json:~/a/y.json"],
        "h": ["transition1x/hdf5:~/b.h5#/train"],
        "n": [],
    }


def test_two_machines_agree_on_a_folder_whatever_its_order_on_disk(tmp_path: Path):
    for place, names in (("one", "abc"), ("two", "cba")):
        for name in names:
            (tmp_path / place / name).mkdir(parents=True)
            (tmp_path / place / name / "f").write_text(name)
    assert folder_digest(tmp_path / "one") == folder_digest(tmp_path / "two")
    (tmp_path / "two" / "a" / "f").rename(tmp_path / "two" / "a" / "g")
    assert folder_digest(tmp_path / "one") != folder_digest(tmp_path / "two")


def test_archives_of_aselmdb_files_are_parts_wherever_they_lie_in_the_archive(tmp_path: Path):
    for name in ("rattled-300/data0000.aselmdb", "rattled-1000/val/data0001.aselmdb", "rattled-300/data0000.aselmdb-lock"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = part_paths(tmp_path, entry("omat24_val").parts["valid"])
    assert [path.removeprefix(f"{tmp_path}/") for path in found] == [
        "rattled-1000/val/data0001.aselmdb",
        "rattled-300/data0000.aselmdb",
    ]


def test_archive_that_cannot_be_unpacked_is_fetched_anew_by_the_same_command(host, tmp_path):
    toy = a_set(a_file(host, "data", remote="p.tar.gz", unpack=True))
    host.files["p.tar.gz"] = b"something else"
    with pytest.raises(FetchError, match="no archive, or a damaged one"):
        fetch(toy, tmp_path)
    host.files["p.tar.gz"] = packed({"a": b"1"})
    (item,) = fetch(toy, tmp_path)
    assert (item.path / "a").read_bytes() == b"1"


def test_archive_put_there_by_hand_is_not_removed(host, tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "data.tar.gz").write_bytes(b"something else")
    with pytest.raises(FetchError, match="move it away first"):
        fetch(a_set(a_file(host, "data", remote="p.tar.gz", unpack=True)), tmp_path)
    assert (tmp_path / "toy" / "data.tar.gz").exists()
