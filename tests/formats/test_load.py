"""``lamella.load`` finds the model in a run folder, a step folder or a deepmd-kit file, or says what it expected."""

from __future__ import annotations

import os
import shutil

import pytest
import torch

from golden_models import GOLDEN
from lamella.errors import CheckpointError, InputError
from lamella.formats.load import as_device, as_dtype, load
from lamella.models.bundle import load_model, save_model


@pytest.fixture
def run(tmp_path):
    """A run with two steps; the first is the best one."""
    folder = tmp_path / "run"
    for step, name in enumerate(("step_0000100", "step_0000200")):
        (folder / name).mkdir(parents=True)
        model = load_model(GOLDEN / "format1")
        model.metadata["step"] = step
        save_model(model, folder / name)
    (folder / "config.yaml").write_text("{}\n")
    (folder / "log.jsonl").write_text("")
    (folder / "best").write_text("step_0000100\n")
    (folder / "last").write_text("step_0000200\n")
    return folder


def test_folder_of_deepmd_kit_names_its_latest_checkpoint(tmp_path):
    shutil.copy(GOLDEN / "order1.pt", tmp_path / "model.ckpt-30.pt")
    with pytest.raises(CheckpointError, match=r"deepmd-kit's checkpoints, not a model; name one: .*model\.ckpt-30\.pt$"):
        load(tmp_path)
    (tmp_path / "model.ckpt.pt").symlink_to("model.ckpt-30.pt")
    with pytest.raises(CheckpointError, match=r"name one: .*model\.ckpt\.pt$"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "input.json",
            '{"model": {}, "training": {}}',
            r"an input of deepmd-kit, not a model\. lamella convert .*input\.json",
        ),
        ("other.json", "[", "a .json file, not a model"),
        ("r.yaml", "{}", "settings, not a model; train one with: lamella train .*yaml"),
    ],
)
def test_settings_are_no_model(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / name)


def test_what_is_no_regular_file_is_said_to_be_none(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "loop.pt").symlink_to("loop.pt")
    (tmp_path / "zero.pt").symlink_to("/dev/zero")
    for name in ("pipe.pt", "loop.pt", "zero.pt"):
        with pytest.raises(CheckpointError, match=rf"{name}: no regular file"):
            load(tmp_path / name)


def test_run_folder_gives_its_best_step(run):
    assert load(run).metadata["step"] == 0


def test_run_folder_without_a_best_step_gives_its_last(run):
    (run / "best").unlink()
    assert load(str(run)).metadata["step"] == 1


def test_step_folder_gives_its_model(run):
    assert load(run / "step_0000200").metadata["step"] == 1


def test_loaded_model_is_frozen_and_in_eval_mode(run):
    for path in (run, GOLDEN / "order1.pt", GOLDEN / "frozen.pth"):
        model = load(path)
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert model.parameter_count() > 0


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(None, torch.float64), ("float32", torch.float32), (torch.float32, torch.float32), ("float64", torch.float64)],
)
def test_dtype_is_kept_or_what_was_asked_for(dtype, expected):
    model = load(GOLDEN / "dpa3_static.pt", dtype=dtype)
    assert {value.dtype for name, value in model.state_dict().items() if name != "baseline"} == {expected}
    assert model.baseline.dtype == torch.float64


def test_baseline_is_not_rounded_by_a_change_of_dtype():
    path = GOLDEN / "dpa3_static.pt"
    assert torch.equal(load(path, dtype="float32").baseline, load(path).baseline)


@pytest.mark.parametrize("dtype", ["flaot32", "int64", torch.int64, torch.float16, ""])
def test_unknown_dtype_is_refused(dtype):
    with pytest.raises(InputError, match="use float32 or float64"):
        as_dtype(dtype)


def test_unknown_dtype_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'float32'"):
        load(GOLDEN / "order1.pt", dtype="flaot32")


@pytest.mark.parametrize("device", ["cpuu", "cuda:99", "tpuu", "mps", "meta"])
def test_device_that_is_not_there_is_refused(device):
    with pytest.raises(InputError, match="device"):
        as_device(device)


def test_path_that_does_not_exist_names_the_nearest(run):
    with pytest.raises(
        CheckpointError, match=r"no such file or folder \(did you mean 'step_0000100'\?\)\. lamella loads a run folder"
    ):
        load(run / "step_00001000")
    with pytest.raises(CheckpointError, match="there is no folder"):
        load(run / "nowhere" / "model.pt")


def test_folder_without_a_model_says_what_was_expected(tmp_path):
    (tmp_path / "water.xyz").write_text("")
    with pytest.raises(
        CheckpointError, match=r"holds no model \(found water.xyz\)\. lamella loads a run folder \(config.yaml"
    ):
        load(tmp_path)


def test_run_that_saved_nothing_yet_says_so(run):
    for name in ("best", "last"):
        (run / name).unlink()
    with pytest.raises(CheckpointError, match="saved no model yet"):
        load(run)


@pytest.mark.parametrize("name", ["step_0000300", "..", "../run/step_0000100", "/", ""])
def test_mark_that_leads_out_of_the_run_is_refused(run, name):
    (run / "best").write_text(name)
    with pytest.raises(CheckpointError, match="no step folder of this run"):
        load(run)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_one_file_of_a_model_folder_points_to_the_folder(run, name):
    with pytest.raises(CheckpointError, match=r"load the folder .*step_0000100 instead"):
        load(run / "step_0000100" / name)


def test_half_a_model_folder_names_the_missing_file(run):
    (run / "step_0000100" / "model.json").unlink()
    with pytest.raises(CheckpointError, match=r"model.json: no such file"):
        load(run)


def test_content_decides_between_checkpoint_and_frozen_model(tmp_path):
    shutil.copy(GOLDEN / "frozen.pth", tmp_path / "a.pt")
    shutil.copy(GOLDEN / "order1.pt", tmp_path / "b.pth")
    assert load(tmp_path / "a.pt").config == load(GOLDEN / "frozen.pth").config
    assert load(tmp_path / "b.pth").config == load(GOLDEN / "order1.pt").config


@pytest.mark.parametrize("content", [b"", b"PK", b"{}", bytes(1000)])
def test_file_that_is_no_model_is_refused(tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model.pt: no PyTorch archive"):
        load(tmp_path / "model.pt")
