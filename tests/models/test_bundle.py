"""A model on disk: the same bits back, and a named refusal of everything that is not a whole, finite, known model."""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from golden_models import GOLDEN
from lamella.errors import CheckpointError, LamellaError
from lamella.models import bundle
from lamella.models.bundle import load_model, save_model
from lamella.models.dpa3 import DPA3Config
from lamella.models.heads import HeadConfig
from lamella.models.potential import ModelConfig, Potential
from lamella.types import Frame

TINY = DPA3Config(
    layers=2,
    node_dim=6,
    edge_dim=6,
    angle_dim=4,
    cutoff=4.0,
    switch_start=3.4,
    angle_cutoff=3.0,
    angle_switch_start=2.5,
    axis=2,
)
WATER = Frame(
    np.array([8, 1, 1]),
    np.array([[0.0, 0.0, 0.1], [0.0, 0.76, 0.69], [0.0, -0.76, 0.69]]),
    np.zeros((3, 3)),
    np.zeros(3, dtype=bool),
)


def tiny(dtype=torch.float32, tasks=("a", "b"), task_dim=0):
    torch.manual_seed(1)
    config = ModelConfig(backbone=TINY, head=HeadConfig(hidden=(6, 6), task_dim=task_dim))
    model = Potential(config, ["H", "O"], tasks, {"data": {"hash": "abc"}, "note": "é"}).cast(dtype)
    for k, task in enumerate(tasks):
        model.set_baseline(task, {"H": -13.123456789012345 - k, "O": -432.1})
    return model


@pytest.fixture
def saved(tmp_path):
    save_model(tiny(), tmp_path)
    return tmp_path


def rewrite_description(folder, **changes):
    path = folder / "model.json"
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def rewrite_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("task_dim", [0, 3])
def test_saved_model_loads_with_identical_bits_and_predictions(tmp_path, dtype, task_dim):
    model = tiny(dtype, task_dim=task_dim)
    save_model(model, tmp_path)
    twin = load_model(tmp_path)
    assert twin.dtype == dtype
    assert twin.baseline.dtype == torch.float64
    assert (twin.config, twin.elements, twin.tasks, twin.metadata) == (
        model.config,
        model.elements,
        model.tasks,
        model.metadata,
    )
    want = model.state_dict()
    assert want.keys() == twin.state_dict().keys()
    for name, value in twin.state_dict().items():
        assert value.dtype == want[name].dtype, name
        assert torch.equal(value, want[name]), name
    for task in model.tasks:
        for a, b in zip(model(model.graph([WATER]), task), twin(twin.graph([WATER]), task), strict=True):
            assert torch.equal(a, b)


def test_loaded_model_can_be_trained(saved):
    model = load_model(saved)
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())
    model(model.graph([WATER]), "a", create_graph=True).forces.square().sum().backward()
    assert model.backbone.embedding.weight.grad.abs().max() > 0


def test_saving_and_loading_leave_the_random_numbers_alone(tmp_path):
    model = tiny()
    before = torch.get_rng_state()
    save_model(model, tmp_path)
    load_model(tmp_path)
    assert torch.equal(before, torch.get_rng_state())


def test_saving_again_replaces_the_model_and_leaves_nothing_else(saved):
    other = tiny(torch.float64)
    save_model(other, saved)
    assert load_model(saved).dtype == torch.float64
    assert sorted(os.listdir(saved)) == ["model.json", "model.safetensors"]


def test_model_of_format_1_still_loads_and_predicts_the_same():
    folder = GOLDEN / "format1"
    expected = json.loads((folder / "predictions.json").read_text())
    model = load_model(folder)
    assert model.tasks == ("a", "b")
    for task in model.tasks:
        got = model(model.graph([WATER]), task)
        assert float(got.energy[0]) == pytest.approx(expected[task]["energy"], rel=1e-12)
        assert got.forces.numpy() == pytest.approx(np.array(expected[task]["forces"]), rel=1e-9, abs=1e-12)


def test_older_format_climbs_every_step_of_the_upgrade_chain(saved, monkeypatch):
    now = bundle.FORMAT

    def first(description, tensors):
        tensors["task_code"] = tensors.pop("old_code")
        return {**description, "format": now + 1}, tensors

    def second(description, tensors):
        return {**description, "format": now + 2, "metadata": {"upgraded": True}}, tensors

    rewrite_weights(saved, lambda tensors: tensors.update(old_code=tensors.pop("task_code")))
    rewrite_description(saved, metadata=None)
    monkeypatch.setattr(bundle, "FORMAT", now + 2)
    monkeypatch.setattr(bundle, "UPGRADES", {now: first, now + 1: second})
    assert load_model(saved).metadata == {"upgraded": True}


def test_there_is_an_upgrade_from_every_older_format():
    assert sorted(bundle.UPGRADES) == list(range(1, bundle.FORMAT))


def test_newer_format_is_refused_with_the_remedy(saved):
    rewrite_description(saved, format=bundle.FORMAT + 1, something_new=1)
    with pytest.raises(CheckpointError, match=rf"newer lamella \(format {bundle.FORMAT + 1}.*pip install --upgrade lamella"):
        load_model(saved)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}: no such file"):
        load_model(saved)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.3, 0.7, 0.999])
def test_file_cut_short_is_refused(saved, name, fraction):
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(CheckpointError, match=rf"{name}: .*copy the folder again"):
        load_model(saved)


def test_header_that_claims_fifty_gigabytes_is_refused_at_once(saved):
    path = saved / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(struct.pack("<Q", 50_000_000_000) + content[8:])
    with pytest.raises(CheckpointError, match="cut short or damaged"):
        load_model(saved)
    claim = json.dumps({"x": {"dtype": "F64", "shape": [6_250_000_000], "data_offsets": [0, 50_000_000_000]}}).encode()
    path.write_bytes(struct.pack("<Q", len(claim)) + claim + bytes(64))
    with pytest.raises(CheckpointError, match="cut short or damaged"):
        load_model(saved)


@pytest.mark.parametrize("claim", [{"node_dim": 10**9}, {"layers": 10**12}, {"edge_dim": 10**14}])
def test_wild_configuration_is_refused_before_anything_is_allocated(saved, claim):
    config = json.loads((saved / "model.json").read_text())["config"]
    config["backbone"] |= claim
    rewrite_description(saved, config=config)
    with pytest.raises(CheckpointError):
        load_model(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("heads.0.nets.0.out.bias"), "misses heads.0.nets.0.out.bias"),
        (lambda t: t.update(extra=torch.zeros(2)), "has unknown extra"),
        (
            lambda t: t.update({"heads.0.nets.0.out.bias": torch.zeros(2)}),
            r"heads.0.nets.0.out.bias has shape \(2,\), .* \(1,\)",
        ),
        (
            lambda t: t.update({"heads.0.nets.0.out.bias": torch.zeros(1).double()}),
            "heads.0.nets.0.out.bias is torch.float64",
        ),
        (lambda t: t.update(baseline=t["baseline"].float()), "baseline is torch.float32, not torch.float64"),
        (lambda t: t["heads.1.nets.0.out.weight"].fill_(float("nan")), "heads.1.nets.0.out.weight contains NaN"),
        (lambda t: t["baseline"].fill_(float("inf")), "baseline contains NaN or infinity"),
        (lambda t: t.pop("backbone.embedding.weight"), "misses backbone.embedding.weight"),
        (lambda t: [t.pop(name) for name in list(t)[:5]], "and 2 more"),
    ],
)
def test_tensor_that_does_not_fit_is_named(saved, change, message):
    rewrite_weights(saved, change)
    with pytest.raises(CheckpointError, match=message):
        load_model(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"elements": ["H", "Xx"]}, "'Xx' is no chemical symbol"),
        ({"elements": ["H"]}, "shape"),
        ({"elements": None}, "elements: Field required"),
        ({"surprise": 1}, "surprise: Extra inputs"),
        ({"config": {"backbone": {"kind": "dpa9"}}}, "config.backbone: Input tag 'dpa9'"),
        ({"format": "one"}, "'format' must be 1 or more"),
        ({"format": 0}, "'format' must be 1 or more"),
        ({"units": {"length": "bohr"}}, "bohr"),
    ],
)
def test_description_that_does_not_fit_is_named(saved, changes, message):
    rewrite_description(saved, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_model(saved)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(["model.json", "model.safetensors"]), where=st.integers(0, 4000), byte=st.integers(0, 255))
def test_damaged_byte_gives_a_model_or_a_named_error_and_nothing_else(tmp_path_factory, name, where, byte):
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(GOLDEN / "format1", folder, dirs_exist_ok=True)
    content = bytearray((folder / name).read_bytes())
    content[where % len(content)] = byte
    (folder / name).write_bytes(bytes(content))
    try:
        model = load_model(folder)
    except LamellaError as error:
        message = str(error)
        assert str(folder) in message
    else:
        assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_full_disk_keeps_the_model_saved_before(saved, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = {name: (saved / name).read_bytes() for name in os.listdir(saved)}
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        CheckpointError, match=r"model.safetensors: cannot be written \(No space left on device\); free space"
    ):
        save_model(tiny(torch.float64), saved)
    assert {name: (saved / name).read_bytes() for name in os.listdir(saved)} == before


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        save_model(tiny(), tmp_path / "nowhere")


def test_metadata_that_is_no_json_is_refused_before_anything_is_written(tmp_path):
    model = tiny()
    model.metadata["hash"] = {1, 2}
    with pytest.raises(CheckpointError, match="metadata"):
        save_model(model, tmp_path)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("factor", [0.0, -1.0])
def test_scale_that_is_not_above_zero_is_refused(tmp_path, factor):
    save_model(Potential(ModelConfig(backbone=TINY), ("O", "H")), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["backbone.environment.std"][1, 0] *= factor
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"backbone\.environment\.std holds a scale that is not above 0"):
        load_model(tmp_path)
