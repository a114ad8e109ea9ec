"""Frozen models are trees of attributes: whatever else their pickle asks for is refused before it happens."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile

import pytest
import torch

from golden_models import GOLDEN
from lamella.errors import CheckpointError
from lamella.formats.archive import archive_kind, read_module
from lamella.formats.deepmd import read


def frozen_with(folder, changes):
    """The golden frozen model with some of its entries replaced."""
    path = folder / "model.pth"
    with zipfile.ZipFile(GOLDEN / "frozen.pth") as archive, zipfile.ZipFile(path, "w") as out:
        for name in archive.namelist():
            content = archive.read(name)
            out.writestr(name, changes.get(name.partition("/")[2], lambda old: old)(content))
    return path


def test_module_tree_has_every_tensor_by_its_dotted_name():
    assert archive_kind(GOLDEN / "frozen.pth") == "module"
    assert archive_kind(GOLDEN / "order1.pt") == "checkpoint"
    tensors, plain = read_module(GOLDEN / "frozen.pth")
    assert tensors["atomic_model.out_bias"].shape == (1, 2, 1)
    assert tensors["atomic_model.descriptor.repflows.layers.0.node_self_mlp.matrix"].dtype == torch.float64
    assert '"type": "dpa3"' in plain["model_def_script"]


class _Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_frozen_model_is_never_run(tmp_path, protocol):
    bomb = pickle.dumps(_Bomb(tmp_path / "mark"), protocol=protocol)
    with pytest.raises(CheckpointError, match="do not trust this file"):
        read(frozen_with(tmp_path, {"data.pkl": lambda _: bomb}))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "name", ["builtins eval", "os system", "torch load", "torch.jit load", "torch._utils _rebuild_parameter", "pickle loads"]
)
def test_unknown_name_in_a_frozen_model_is_refused(tmp_path, name):
    content = b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\nq\x00X\x01\x00\x00\x00x\x85R."
    with pytest.raises(CheckpointError, match=f"asks for {name.replace(' ', '.')}, which lamella never runs"):
        read(frozen_with(tmp_path, {"data.pkl": lambda _: content}))


def test_memo_index_beyond_the_text_is_refused(tmp_path):
    content = b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b"."
    with pytest.raises(CheckpointError, match="more objects than it has bytes"):
        read(frozen_with(tmp_path, {"data.pkl": lambda _: content}))


def test_storage_that_is_shorter_than_its_claim_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"storage 1 has 8 bytes, not 2 of torch.float64"):
        read(frozen_with(tmp_path, {"data/1": lambda old: old[:8]}))


def test_tensor_larger_than_its_storage_is_refused(tmp_path):
    """The first tensor of the tree is out_bias (1, 2, 1); its middle extent is rewritten to 255."""
    content = zipfile.ZipFile(GOLDEN / "frozen.pth").read("frozen/data.pkl")
    shape = content.index(b"(K\x01K\x02K\x01t")
    hostile = content[: shape + 4] + b"\xff" + content[shape + 5 :]
    with pytest.raises(CheckpointError, match=r"claims shape \(1, 255, 1\) of 2 stored numbers"):
        read(frozen_with(tmp_path, {"data.pkl": lambda _: hostile}))


def test_nan_in_a_frozen_model_is_named(tmp_path):
    nan = struct.pack("<d", float("nan"))
    with pytest.raises(CheckpointError, match="contains NaN or infinity"):
        read(frozen_with(tmp_path, {"data/5": lambda old: nan + old[8:], "data/9": lambda old: nan + old[8:]}))


def test_other_byte_order_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="big-endian"):
        read(frozen_with(tmp_path, {"byteorder": lambda _: b"big"}))


def test_modules_that_contain_themselves_end_in_an_error(tmp_path):
    """Two attributes of every module are the next module, 40 deep: 2^40 names."""
    make = b"c__torch__.a\nM\n)\x81"
    module = make + b"}b"
    for k in range(40):
        memo = bytes([k])
        module = make + b"}(X\x01\x00\x00\x00a" + module + b"q" + memo + b"X\x01\x00\x00\x00bh" + memo + b"ub"
    content = b"\x80\x02" + module
    with pytest.raises(CheckpointError, match="refer to each other without end"):
        read(frozen_with(tmp_path, {"data.pkl": lambda _: content + b"."}))


def test_torchscript_of_another_program_is_refused(tmp_path):
    class Plain(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    torch.jit.save(torch.jit.script(Plain()), tmp_path / "plain.pth")
    with pytest.raises(CheckpointError, match="no deepmd-kit model"):
        read(tmp_path / "plain.pth")


def test_zip_that_is_no_archive_of_pytorch_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "notes.pt", "w") as out:
        out.writestr("notes/readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"no data\.pkl"):
        read(tmp_path / "notes.pt")
