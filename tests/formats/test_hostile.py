"""Files made to harm: refused by name, before anything runs and before anything large is made."""

from __future__ import annotations

import json
import pickle
import re
import struct
import time
import zipfile

import numpy as np
import pytest
import torch
from ase.data import chemical_symbols

from golden_models import GOLDEN
from lamella.errors import CheckpointError
from lamella.formats.deepmd import read, write
from lamella.formats.load import load
from lamella.models.bundle import save_model

DESCRIPTOR = "model.Default.atomic_model.descriptor."
FITTING = "model.Default.atomic_model.fitting_net."


@pytest.fixture(autouse=True)
def in_no_time():
    start = time.perf_counter()
    yield
    assert time.perf_counter() - start < 5.0


def checkpoint(name="order1"):
    return torch.load(GOLDEN / f"{name}.pt", weights_only=True)


def saved(folder, content):
    torch.save(content, folder / "model.pt")
    return folder / "model.pt"


def pickled(folder, content):
    """A checkpoint whose pickle is ``content``."""
    path = folder / "model.pt"
    with zipfile.ZipFile(GOLDEN / "order1.pt") as archive, zipfile.ZipFile(path, "w") as out:
        for name in archive.namelist():
            out.writestr(name, content if name.endswith("/data.pkl") else archive.read(name))
    return path


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word.encode()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        *(("os", "system"), ("builtins", "eval"), ("builtins", "getattr"), ("builtins", "bytearray"), ("torch", "load")),
        *(("torch._utils", "_rebuild_sparse_tensor"), ("torch.storage", "_load_from_bytes"), ("operator", "attrgetter")),
        *(("numpy", "load"), ("functools", "partial"), ("lamella.formats.load", "load"), ("torch.hub", "load")),
    ],
)
def test_name_outside_the_handful_is_refused_before_it_is_called(tmp_path, module, name):
    """``bytearray(50_000_000_000)`` would claim 50 GB without any code of its own."""
    call = b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"\x8a\x05" + (50_000_000_000).to_bytes(5, "little") + b"\x85R."
    with pytest.raises(CheckpointError, match=rf"asks for {module}\.{name}, which lamella never runs; do not trust"):
        read(pickled(tmp_path, call))


@pytest.mark.parametrize("value", [np.float64(1e-3), np.float32(0.5), np.int64(7), np.bool_(True)])
def test_numpy_numbers_of_early_files_are_read(tmp_path, value):
    content = checkpoint()
    content["model"]["_extra_state"]["train_infos"] = {"lr": value, "step": 3}
    model = read(saved(tmp_path, content))
    kept = model.metadata["deepmd"]["train_infos"]["lr"]
    assert kept == value
    assert type(kept) is type(value.item())


def test_attribute_of_a_known_function_cannot_be_set(tmp_path):
    content = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}" + text("a") + b"K\x01sb."
    with pytest.raises(CheckpointError, match="sets attributes of a function"):
        read(pickled(tmp_path, content))


@pytest.mark.parametrize("protocol", [0, 3, 4, 5])
def test_pickle_of_another_protocol_is_refused(tmp_path, protocol):
    content = pickle.dumps({"model": {"x": b"bytes", "y": {1, 2}}}, protocol=protocol)
    with pytest.raises(CheckpointError, match="which PyTorch does not write"):
        read(pickled(tmp_path, content))


def test_storage_that_claims_fifty_gigabytes_in_the_pickle_is_refused(tmp_path):
    count = b"\x8a\x05" + (6_250_000_000).to_bytes(5, "little")
    storage = b"(" + text("storage") + b"ctorch\nDoubleStorage\n" + text("0") + text("cpu") + count + b"tQ"
    with pytest.raises(CheckpointError, match=r"storage 0 has \d+ bytes, not 6250000000"):
        read(pickled(tmp_path, b"\x80\x02" + storage + b"."))


def test_compressed_entries_are_refused(tmp_path):
    """A zip bomb: a few bytes that unfold to any size."""
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(GOLDEN / "order1.pt") as archive, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name in archive.namelist():
            out.writestr(name, bytes(10**7) if name.endswith("/data/0") else archive.read(name))
    with pytest.raises(CheckpointError, match="claims more bytes than"):
        read(path)


def test_entries_that_lie_upon_each_other_are_refused(tmp_path):
    """A thousand names of the same bytes."""
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(GOLDEN / "order1.pt") as archive, zipfile.ZipFile(path, "w") as out:
        for name in archive.namelist():
            out.writestr(name, archive.read(name))
        first = next(info for info in out.infolist() if info.filename.endswith("/data/0"))
        for k in range(1000):
            twin = zipfile.ZipInfo(f"order1/data/twin{k}")
            twin.header_offset, twin.CRC, twin.file_size, twin.compress_size = first.header_offset, first.CRC, 10**5, 10**5
            out.filelist.append(twin)
    with pytest.raises(CheckpointError, match="claims more bytes than"):
        read(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (f"{DESCRIPTOR}repflows.stddev", float("nan")),
        (f"{DESCRIPTOR}type_embedding.embedding.embedding_net.layers.0.matrix", float("inf")),
        (f"{FITTING}filter_layers.networks.0.layers.0.matrix", float("nan")),
        ("model.Default.atomic_model.out_bias", float("-inf")),
    ],
)
def test_number_that_is_none_is_named(tmp_path, key, value):
    content = checkpoint()
    content["model"][key].fill_(value)  # both copies of a network are one memory
    with pytest.raises(CheckpointError, match="contains NaN or infinity; use a step before"):
        read(saved(tmp_path, content))


@pytest.mark.parametrize("factor", [0.0, -1.0])
def test_scale_that_is_not_above_zero_is_refused(tmp_path, factor):
    content = checkpoint()
    content["model"][f"{DESCRIPTOR}repflows.stddev"] *= factor
    with pytest.raises(CheckpointError, match=r"repflows\.stddev holds a number that is not above 0"):
        read(saved(tmp_path, content))


@pytest.mark.parametrize(
    ("key", "shape"),
    [("out_bias", (2, 2, 1)), ("out_bias", (1, 3, 1)), ("out_std", (1, 2, 2)), ("fitting_net.bias_atom_e", (1, 2))],
)
def test_bias_of_another_shape_is_named(tmp_path, key, shape):
    content = checkpoint()
    content["model"][f"model.Default.atomic_model.{key}"] = torch.ones(shape, dtype=torch.float64)
    with pytest.raises(CheckpointError, match=rf"tensor atomic_model\.{key} has shape {re.escape(str(shape))}, its config"):
        read(saved(tmp_path, content))


@pytest.mark.parametrize("key", ["out_bias", "fitting_net.bias_atom_e", "descriptor.repflows.mean"])
def test_missing_tensor_is_named(tmp_path, key):
    content = checkpoint()
    del content["model"][f"model.Default.atomic_model.{key}"]
    with pytest.raises(CheckpointError, match=rf"tensor atomic_model\.{key} is missing"):
        read(saved(tmp_path, content))


def test_missing_networks_are_noticed_before_thousands_are_built(tmp_path):
    content = checkpoint("se_a_one_side")
    state = content["model"]
    params = state["_extra_state"]["model_params"]
    params["type_map"] = chemical_symbols[1:119]
    params["descriptor"] |= {"sel": [1] * 118, "type_one_side": False}
    state["model.Default.atomic_model.out_bias"] = torch.zeros(1, 118, 1, dtype=torch.float64)
    state["model.Default.atomic_model.out_std"] = torch.ones(1, 118, 1, dtype=torch.float64)
    state[f"{FITTING}bias_atom_e"] = torch.zeros(118, 1, dtype=torch.float64)
    start = time.perf_counter()
    with pytest.raises(CheckpointError, match=r"networks\.\d+\.layers\.0\.matrix is missing"):
        read(saved(tmp_path, content))
    assert time.perf_counter() - start < 2.0


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        *(("repflow", "nlayers", value) for value in ("2", 2.0, True)),
        *(("fitting_net", "numb_fparam", value) for value in ("0", 0.0, False)),
        *(("repflow", "e_rcut", value) for value in ("4.0", True)),
        *(("fitting_net", "resnet_dt", value) for value in ("true", 1)),
    ],
)
def test_value_of_another_type_is_refused(tmp_path, section, key, value):
    content = checkpoint()
    params = content["model"]["_extra_state"]["model_params"]
    (params["descriptor"]["repflow"] if section == "repflow" else params[section])[key] = value
    with pytest.raises(CheckpointError, match=r"configuration not understood: [a-z_]+: Input should be a valid"):
        read(saved(tmp_path, content))


@pytest.mark.parametrize("name", ["silut:nan", "silut:1e400", "custom_silu:-inf"])
def test_threshold_that_is_no_number_is_refused(tmp_path, name):
    content = checkpoint()
    content["model"]["_extra_state"]["model_params"]["descriptor"]["activation_function"] = name
    with pytest.raises(CheckpointError, match="threshold must be a finite number"):
        read(saved(tmp_path, content))


def test_control_characters_of_keys_do_not_reach_the_terminal(tmp_path):
    content = checkpoint()
    content["model"]["_extra_state"]["model_params"]["descriptor"]["\x1b[31mred\x07"] = "\x1b[2J"
    with pytest.raises(CheckpointError) as caught:
        read(saved(tmp_path, content))
    assert r"descriptor.\x1b[31mred\x07 = '\x1b[2J'" in str(caught.value)
    content = checkpoint()
    content["model"]["model.Default.\x1b[31m"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as caught:
        read(saved(tmp_path, content))
    assert str(caught.value).isprintable()


def test_options_that_contradict_each_other_are_said_without_ado(tmp_path):
    content = checkpoint()
    content["model"]["_extra_state"]["model_params"]["descriptor"]["repflow"]["a_rcut"] = 50.0
    with pytest.raises(CheckpointError, match=r"configuration not understood: (?!:|Value error)"):
        read(saved(tmp_path, content))


def test_two_copies_of_a_network_that_differ_are_refused(tmp_path):
    content = checkpoint()
    key = f"{FITTING}filter_layers._networks.0.layers.0.matrix"
    content["model"][key] = content["model"][key] + 1
    with pytest.raises(CheckpointError, match="differs from its other copy"):
        read(saved(tmp_path, content))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        *(("repflow", "nlayers", 10**9), ("repflow", "n_dim", 10**12), ("repflow", "e_sel", 10**15)),
        *(("repflow", "n_multi_edge_message", 10**9), ("repflow", "axis_neuron", 10**9), ("repflow", "nlayers", 10**30)),
        *(("fitting_net", "neuron", [10**9] * 3), ("fitting_net", "neuron", [8] * 10**5)),
        *(("fitting_net", "dim_case_embd", 10**12), ("fitting_net", "numb_fparam", 10**12)),
        *(("repflow", "nlayers", -1), ("repflow", "e_rcut", float("nan")), ("repflow", "e_rcut", 10**400)),
        *(("repflow", "n_dim", "many"), ("repflow", "n_dim", None), ("repflow", "n_dim", [[]] * 5)),
    ],
)
def test_count_beyond_reason_makes_nothing(tmp_path, section, key, value):
    content = checkpoint()
    params = content["model"]["_extra_state"]["model_params"]
    (params["descriptor"]["repflow"] if section == "repflow" else params[section])[key] = value
    with pytest.raises(CheckpointError, match=r"model\.pt: "):
        read(saved(tmp_path, content))


def test_configuration_nested_without_end_is_refused(tmp_path):
    nested = b"]" * 100_000 + b"a" * 99_999
    content = b"\x80\x02}" + text("model") + b"}" + text("_extra_state") + nested + b"ss."
    with pytest.raises(CheckpointError, match="nested deeper or larger"):
        read(pickled(tmp_path, content))


def test_configuration_that_unfolds_to_two_to_the_fortieth_is_refused(tmp_path):
    content = ["x"]
    for _ in range(20):
        content = [content] * 4
    with pytest.raises(CheckpointError, match="nested deeper or larger"):
        read(saved(tmp_path, {"model": {"_extra_state": content}}))


@pytest.mark.parametrize("value", [torch.zeros(2), {1: 2}, {1, 2}])
def test_configuration_of_something_else_than_plain_values_is_refused(tmp_path, value):
    content = checkpoint()
    content["model"]["_extra_state"]["model_params"]["info"] = value
    with pytest.raises(CheckpointError, match=r"no plain value|never runs"):
        read(saved(tmp_path, content))


def test_thousands_of_branches_are_refused(tmp_path):
    content = checkpoint()
    extra = content["model"]["_extra_state"]
    extra["model_params"] = {"model_dict": {f"b{k}": {} for k in range(5000)}}
    with pytest.raises(CheckpointError, match="does not hold 1 to 1000 branches"):
        read(saved(tmp_path, content))


@pytest.mark.parametrize("key", ["compress_info.0", "compress_data.1"])
def test_compressed_model_is_refused_with_what_to_give_instead(tmp_path, key):
    content = checkpoint("se_a_one_side")
    content["model"][f"{DESCRIPTOR}sea.{key}"] = torch.ones(6, dtype=torch.float64)
    with pytest.raises(CheckpointError, match=r"compression table.*dp compress started from"):
        read(saved(tmp_path, content))


def test_checkpoint_of_another_backend_is_named(tmp_path):
    content = checkpoint()
    content["model"][f"{DESCRIPTOR}repflows.edge_embd.w"] = torch.ones(1, 6, dtype=torch.float64)
    with pytest.raises(CheckpointError, match="pt_expt backend"):
        read(saved(tmp_path, content))


@pytest.mark.parametrize("ending", [".pb", ".dp", ".pt2"])
def test_file_of_another_backend_names_the_way_here(tmp_path, ending):
    (tmp_path / f"graph{ending}").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=rf"dp convert-backend graph\{ending} graph\.pth"):
        load(tmp_path / f"graph{ending}")


@pytest.mark.parametrize("record", [{"precision": 3}, {"branches": {"Default": {"out_bias": 1}}}, {"model_params": []}])
def test_damaged_notes_of_a_model_folder_are_a_named_error(tmp_path, record):
    save_model(load(GOLDEN / "order1.pt"), tmp_path)
    description = json.loads((tmp_path / "model.json").read_text())
    description["metadata"]["deepmd"] = record
    (tmp_path / "model.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match=r"metadata\.deepmd of the model is damaged"):
        write(load(tmp_path), tmp_path / "model.pt")
    assert not (tmp_path / "model.pt").exists()
