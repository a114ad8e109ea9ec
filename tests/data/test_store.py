"""The store gives back what was written, from disk, or says what is damaged."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from lamella.data.digest import frame_digest
from lamella.data.source import FrameList, Selection, open_frames, split_fraction
from lamella.data.store import Store, is_store, write_store
from lamella.data.write import write_frames
from lamella.errors import DataError
from lamella.types import Frame


def frame(seed: int, labels: str = "efv") -> Frame:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9))
    values = {"e": ("energy", ()), "f": ("forces", (n, 3)), "v": ("virial", (3, 3))}
    return Frame(
        rng.integers(1, 90, n),
        rng.normal(size=(n, 3)),
        rng.normal(size=(3, 3)),
        rng.random(3) > 0.5,
        {values[key][0]: rng.normal(size=values[key][1]) for key in labels},
        f"é{seed}.xyz#{seed}",
    )


FRAMES = [frame(0), frame(1, ""), frame(2, "e"), frame(3, "ef"), frame(4, "v")]


def assert_same(a: Frame, b: Frame) -> None:
    assert a.source == b.source
    assert set(a.labels) == set(b.labels)
    for x, y in [(getattr(a, name), getattr(b, name)) for name in ("numbers", "positions", "cell", "pbc")]:
        np.testing.assert_array_equal(x, y)
    for name, value in a.labels.items():
        np.testing.assert_array_equal(b.labels[name], value)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [1, 2, 3, 4, 0], [4, 1, 1, 0]])
def test_store_returns_every_frame_with_exactly_the_labels_it_had(tmp_path, order):
    frames = [FRAMES[index] for index in order]
    store = write_store(tmp_path / "s", iter(frames))
    assert len(store) == len(frames)
    for index in reversed(range(len(frames))):
        assert_same(frames[index], store[index])
    assert_same(frames[-1], store[-1])
    with pytest.raises(IndexError):
        store[len(frames)]


def test_content_hash_depends_on_content_and_order_only(tmp_path):
    store = write_store(tmp_path / "s", FRAMES)
    os.rename(tmp_path / "s", tmp_path / "moved")
    assert Store(tmp_path / "moved").content_hash == store.content_hash == FrameList(FRAMES).content_hash
    assert FrameList(FRAMES[::-1]).content_hash != store.content_hash
    renamed = [Frame(f.numbers, f.positions, f.cell, f.pbc, f.labels, "elsewhere") for f in FRAMES]
    assert FrameList(renamed).content_hash == store.content_hash
    changed = [*FRAMES[:-1], frame(4, "")]
    assert FrameList(changed).content_hash != store.content_hash
    assert Selection(store, range(len(store))).content_hash == store.content_hash


def test_a_frame_and_its_digest_survive_pickling_to_a_worker(tmp_path):
    store = write_store(tmp_path / "s", FRAMES)
    again = pickle.loads(pickle.dumps(store))
    assert len(pickle.dumps(store)) < 500
    assert_same(again[3], FRAMES[3])
    assert again.digest(3) == frame_digest(FRAMES[3])


def test_existing_path_is_refused_and_left_alone(tmp_path):
    write_store(tmp_path / "s", FRAMES)
    with pytest.raises(DataError, match="exists already"):
        write_store(tmp_path / "s", FRAMES[:1])
    assert len(Store(tmp_path / "s")) == len(FRAMES)


def test_failure_while_writing_leaves_nothing_behind(tmp_path):
    def broken():
        yield FRAMES[0]
        raise DataError("frame 1 is broken")

    with pytest.raises(DataError, match="frame 1"):
        write_store(tmp_path / "s", broken())
    with pytest.raises(DataError, match="no frames"):
        write_store(tmp_path / "s", [])
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_one_sentence_and_leaves_nothing_behind(tmp_path):
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "import numpy as np; from lamella.types import Frame; from lamella.data.store import write_store;"
        "from lamella.errors import DataError;"
        "f = Frame(np.ones(50, int), np.random.rand(50, 3), np.eye(3), np.ones(3, bool))\n"
        "try: write_store(sys.argv[1], [f] * 50)\n"
        "except DataError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", script, tmp_path / "s"], capture_output=True, text=True, check=True)
    assert "cannot be written (File too large)" in result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["positions", "offset", "digest", "carries", "forces", "source"])
def test_truncated_array_is_found_on_opening(tmp_path, name):
    write_store(tmp_path / "s", FRAMES)
    file = tmp_path / "s" / f"{name}.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"s: the store is damaged or cut short \({name}.bin has"):
        Store(tmp_path / "s")
    file.unlink()
    with pytest.raises(DataError, match=rf"{name}.bin is missing"):
        Store(tmp_path / "s")


@pytest.mark.parametrize("name", ["positions", "numbers", "cell", "forces", "energy", "pbc", "carries"])
def test_flipped_byte_is_found_when_the_frame_is_read(tmp_path, name):
    write_store(tmp_path / "s", FRAMES)
    file = tmp_path / "s" / f"{name}.bin"
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)
    store = Store(tmp_path / "s")
    with pytest.raises(DataError, match=r"frame 0 \(é0.xyz#0\) does not match its checksum"):
        store[0]
    assert_same(store[4], FRAMES[4])


def test_damaged_index_and_newer_version_are_refused(tmp_path):
    write_store(tmp_path / "s", FRAMES)
    index = tmp_path / "s" / "index.json"
    text = index.read_text()
    index.write_text(text.replace('"frames": 5', '"frames": 4'))
    with pytest.raises(DataError, match="does not match its checksum"):
        Store(tmp_path / "s")
    index.write_text(json.dumps({**json.loads(text), "version": 99}))
    with pytest.raises(DataError, match="store version 99"):
        Store(tmp_path / "s")
    index.write_text(text[:50])
    with pytest.raises(DataError, match=r"index\.json cannot be read"):
        Store(tmp_path / "s")
    assert not is_store(tmp_path)
    with pytest.raises(DataError, match="no lamella store"):
        Store(tmp_path)


GROWTH = """
import resource, sys
import numpy as np
from lamella.data.store import write_store
from lamella.types import Frame

def frames(n):
    for i in range(n):
        p = np.full((1000, 3), float(i))
        yield Frame(np.ones(1000, int), p, np.eye(3), np.ones(3, bool), {"forces": p})

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

write_store(sys.argv[1] + "/a", frames(20))
before = peak()
write_store(sys.argv[1] + "/b", frames(1000))
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path):
    result = subprocess.run([sys.executable, "-c", GROWTH, tmp_path], capture_output=True, text=True, check=True)
    size = sum(file.stat().st_size for file in (tmp_path / "b").iterdir())
    assert size > 48e6
    assert int(result.stdout) * 1024 < size / 6


def test_open_frames_chains_stores_and_files_in_order(tmp_path):
    write_store(tmp_path / "s", FRAMES[:3])
    write_frames([tmp_path / "s"], tmp_path / "t.extxyz")
    both = open_frames([tmp_path / "s", tmp_path / "t.extxyz"])
    assert len(both) == 6
    assert [both[index].source.rpartition("/")[2] for index in (0, 2, 3, 5)] == [
        "é0.xyz#0",
        "é2.xyz#2",
        "t.extxyz#0",
        "t.extxyz#2",
    ]
    assert both.content_hash == FrameList([*FRAMES[:3], *FRAMES[:3]]).content_hash
    assert_same(both[-6], FRAMES[0])
    with pytest.raises(IndexError):
        both[6]
    with pytest.raises(DataError, match="no data files"):
        open_frames([])


def test_writing_extended_xyz_is_atomic(tmp_path):
    write_store(tmp_path / "s", FRAMES)
    (tmp_path / "bad.xyz").write_text("2\nenergy=1\nH 0 0 0\n")
    with pytest.raises(DataError, match=r"bad\.xyz#0"):
        write_frames([tmp_path / "s", tmp_path / "bad.xyz"], tmp_path / "out.extxyz")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.xyz", "s"]


def test_a_compressed_target_is_refused_rather_than_made_a_folder(tmp_path):
    write_store(tmp_path / "s", [frame(0)])
    with pytest.raises(DataError, match=r"b.xyz.gz: lamella writes no compressed files"):
        write_frames([tmp_path / "s"], tmp_path / "b.xyz.gz")
    assert not (tmp_path / "b.xyz.gz").exists()


def test_split_is_seeded_complete_and_disjoint():
    frames = FrameList([frame(seed) for seed in range(50)])
    rest, held = split_fraction(frames, 0.2, seed=3)
    again = split_fraction(frames, 0.2, seed=3)
    other = split_fraction(frames, 0.2, seed=4)
    assert (len(rest), len(held)) == (40, 10)
    assert again[1].content_hash == held.content_hash != other[1].content_hash
    sources = [rest[i].source for i in range(40)] + [held[i].source for i in range(10)]
    assert sorted(sources) == sorted(frames[i].source for i in range(50))
    for fraction in (0.0, 1.0):
        with pytest.raises(DataError, match="between 0 and 1"):
            split_fraction(frames, fraction, 0)
    with pytest.raises(DataError, match="cannot be split"):
        split_fraction(FrameList(FRAMES[:1]), 0.5, 0)
