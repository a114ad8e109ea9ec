"""The way back to deepmd-kit: same tensors bit for bit, nothing lost in silence (``make interop``: deepmd-kit runs them)."""

from __future__ import annotations

import copy
import re

import pytest
import torch

from golden_models import GOLDEN, disagreements
from lamella.errors import CheckpointError
from lamella.formats.deepmd import read, slots_of, state_from_potential, write
from lamella.formats.load import load
from lamella.models.bundle import load_model, save_model
from lamella.models.dpa1 import DPA1Config
from lamella.models.dpa2 import DPA2Config, RepinitConfig, ThreeBodyConfig
from lamella.models.dpa3 import DPA3Config
from lamella.models.extend import only_tasks
from lamella.models.heads import HeadConfig
from lamella.models.potential import ModelConfig, Potential
from lamella.models.se_a import SeAConfig
from lamella.nn.repformer import RepformerConfig

ORDER_DEPENDENT = ("order_concat", "order_strip", "order_dpa2")
CHECKPOINTS = sorted(path.stem for path in GOLDEN.glob("*.pt") if path.stem not in ORDER_DEPENDENT)
_SIZES = {"layers": 2, "node_dim": 6, "edge_dim": 5, "angle_dim": 4, "axis": 2, "edge_sel": 60, "angle_sel": 30}
_CUTOFFS = {"cutoff": 4.0, "switch_start": 3.4, "angle_cutoff": 3.0, "angle_switch_start": 2.5}
SMALL = DPA3Config(**_SIZES, **_CUTOFFS)
HEAD = HeadConfig(hidden=(5, 5))


def stored(path):
    """The ``model`` section of a file, as PyTorch itself reads it."""
    content = torch.load(path, weights_only=True)
    return content.get("model", content)


def assert_same_tensors(got, want):
    assert got.keys() == want.keys()
    for name in want.keys() - {"_extra_state"}:
        assert got[name].dtype == want[name].dtype, name
        assert torch.equal(got[name], want[name]), name


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoint_goes_there_and_back_bit_for_bit(tmp_path, name):
    write(read(GOLDEN / f"{name}.pt"), tmp_path / "back.pt")
    got, want = stored(tmp_path / "back.pt"), stored(GOLDEN / f"{name}.pt")
    assert_same_tensors(got, want)
    assert got["_extra_state"]["model_params"] == want["_extra_state"]["model_params"]


@pytest.mark.parametrize("name", ["dpa3_multitask_heads", "dpa1_attn3_strip", "se_a_exclude", "float32"])
def test_way_through_a_model_folder_loses_nothing(tmp_path, name):
    save_model(read(GOLDEN / f"{name}.pt"), tmp_path)
    write(load_model(tmp_path), tmp_path / "back.pt")
    assert_same_tensors(stored(tmp_path / "back.pt"), stored(GOLDEN / f"{name}.pt"))


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.pth")))
def test_frozen_model_becomes_a_checkpoint(tmp_path, name):
    write(read(GOLDEN / f"{name}.pth"), tmp_path / "model.pt")
    worst = disagreements(load(tmp_path / "model.pt"), name)
    assert max(worst.values()) < 1e-10, worst


def test_what_lamella_does_not_use_comes_back(tmp_path):
    content = torch.load(GOLDEN / "order1.pt", weights_only=True)
    state = content["model"]
    state["model.Default.min_nbor_dist"] = torch.tensor(0.875, dtype=torch.float64)
    state["model.Default.atomic_model.out_std"] = torch.tensor([[[0.25], [0.75]]], dtype=torch.float64)
    state["model.Default.atomic_model.fitting_net.bias_atom_e"] = torch.tensor([[0.1], [0.2]], dtype=torch.float64)
    params = state["_extra_state"]["model_params"]
    params |= {"info": {"doi": "10.1/x", "kept": [1, None, True]}, "data_stat_nbatch": 5}
    params["fitting_net"] |= {"trainable": [True, False], "seed": 7}
    state["_extra_state"]["train_infos"] = {"lr": 1e-4, "step": 1234}
    torch.save(content, tmp_path / "in.pt")
    write(read(tmp_path / "in.pt"), tmp_path / "out.pt")
    got = stored(tmp_path / "out.pt")
    assert_same_tensors(got, state)
    assert got["_extra_state"] == state["_extra_state"]


def test_file_of_an_older_version_without_shortest_distance_gets_none(tmp_path):
    content = torch.load(GOLDEN / "order1.pt", weights_only=True)
    del content["model"]["model.Default.min_nbor_dist"]
    torch.save(content, tmp_path / "in.pt")
    assert "model.Default.min_nbor_dist" not in state_from_potential(read(tmp_path / "in.pt"))


def test_energies_per_element_changed_since_are_written_as_they_are(tmp_path):
    content = torch.load(GOLDEN / "order1.pt", weights_only=True)
    content["model"]["model.Default.atomic_model.fitting_net.bias_atom_e"][:] = 0.5
    torch.save(content, tmp_path / "in.pt")
    model = read(tmp_path / "in.pt")
    model.set_baseline("default", {"H": -13.25})
    state = state_from_potential(model)
    assert state["model.Default.atomic_model.out_bias"][0, 1, 0] == -13.25
    assert not state["model.Default.atomic_model.fitting_net.bias_atom_e"].any()


def mixed_precision(folder):
    """The golden checkpoint of single precision with a fitting net of double precision."""
    content = torch.load(GOLDEN / "float32.pt", weights_only=True)
    state = content["model"]
    state["_extra_state"]["model_params"]["fitting_net"]["precision"] = "float64"
    for name in state:
        if ".fitting_net.filter_layers" in name:
            state[name] = state[name].double() + 1e-12
    torch.save(content, folder / "mixed.pt")
    return folder / "mixed.pt"


def test_of_two_precisions_the_wider_is_kept_and_both_come_back(tmp_path):
    path = mixed_precision(tmp_path)
    model = read(path)
    assert model.dtype == torch.float64
    write(model, tmp_path / "back.pt")
    assert_same_tensors(stored(tmp_path / "back.pt"), stored(path))


def test_weights_that_no_longer_fit_their_precision_are_written_in_the_wider_one(tmp_path):
    model = read(mixed_precision(tmp_path))
    with torch.no_grad():
        model.backbone.edge_init.bias += 1e-12
    state = state_from_potential(model)
    key = "model.Default.atomic_model.descriptor.repflows.edge_embd.bias"
    assert torch.equal(state[key], model.backbone.edge_init.bias)
    assert state["_extra_state"]["model_params"]["descriptor"]["precision"] == "float64"


def test_model_cast_down_is_written_as_it_is():
    state = state_from_potential(load(GOLDEN / "order1.pt", dtype="float32"))
    params = state["_extra_state"]["model_params"]
    assert params["descriptor"]["precision"] == params["fitting_net"]["precision"] == "float32"
    assert state["model.Default.atomic_model.descriptor.repflows.stddev"].dtype == torch.float32
    assert state["model.Default.atomic_model.out_bias"].dtype == torch.float64


BACKBONES = {
    "se_a": SeAConfig(cutoff=4.0, sel={"O": 30, "H": 50}, neurons=(4, 8), axis=2, excluded_pairs=(("O", "H"),)),
    "dpa1": DPA1Config(cutoff=4.0, sel=60, neurons=(4, 8), axis=2, attention_layers=1, attention_dim=6, embedding_dim=3),
    "dpa2": DPA2Config(
        repinit=RepinitConfig(cutoff=4.5, sel=70, neurons=(4, 8), axis=2, embedding_dim=3),
        three_body=ThreeBodyConfig(cutoff=3.0, switch_start=2.0, sel=30, neurons=(2, 4)),
        repformer=RepformerConfig(cutoff=3.5, switch_start=3.0, sel=40, layers=2, node_dim=6, pair_dim=4, axis=2),
    ),
    "dpa3": SMALL,
    "dpa3_charged": SMALL.model_copy(update={"charge_spin": True, "default_charge_spin": (1.0, 2.0)}),
}
HEADS = {
    "plain": HEAD,
    "encoded": HEAD.model_copy(update={"task_dim": 3}),
    "shared": HEAD.model_copy(update={"shared": True}),
    "frame": HEAD.model_copy(update={"frame_params": 2, "default_frame_params": (0.5, 1.5), "subtract_vacuum": ("O", "H")}),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_model_of_lamella_reads_back_the_same(tmp_path, backbone, head):
    config = ModelConfig(backbone=BACKBONES[backbone], head=HEADS[head], excluded_atoms=("H",), excluded_pairs=(("O", "O"),))
    model = Potential(config, ("O", "H"), ("water", "ice")).cast(torch.float64)
    model.set_baseline("ice", {"O": -400.1})
    write(model, tmp_path / "model.pt")
    back = read(tmp_path / "model.pt")
    assert (back.config, back.elements, back.tasks) == (model.config, model.elements, model.tasks)
    for (name, value), other in zip(model.state_dict().items(), back.state_dict().values(), strict=True):
        assert torch.equal(value, other), name


def test_both_copies_of_a_network_and_every_slot_are_written():
    model = Potential(ModelConfig(backbone=BACKBONES["se_a"], head=HEAD), ("O", "H"))
    state = state_from_potential(model)
    for name in [name for name in state if ".networks." in name]:
        assert state[name] is state[name.replace(".networks.", "._networks.")], "one tensor, so that a file stores it once"
    prefix = "model.Default.atomic_model."
    assert state[f"{prefix}descriptor.sea.mean"].shape == state[f"{prefix}descriptor.sea.stddev"].shape == (2, 80, 4)
    assert state[f"{prefix}out_std"].tolist() == [[[1.0], [1.0]]]
    assert state["model.Default.min_nbor_dist"] == -1, "unknown"
    assert slots_of(model) == {"sea": 80}


def test_tasks_share_the_memory_of_what_they_share():
    """A file of many tasks is as large as its numbers, not as its tasks times its numbers."""
    model = Potential(ModelConfig(backbone=SMALL, head=HEADS["encoded"]), ("O", "H"), ("a", "b"))
    state = state_from_potential(model)
    params = state["_extra_state"]["model_params"]
    assert list(params["shared_dict"]) == ["type_map", "descriptor", "fitting_net"]
    assert params["model_dict"]["b"]["descriptor"] == params["shared_dict"]["descriptor"], "references written out"
    alone = ("out_bias", "out_std", "bias_atom_e", "case_embd", "min_nbor_dist")
    for name in (name for name in state if name.startswith("model.a.")):
        assert (state[name] is state[name.replace("model.a.", "model.b.")]) != name.endswith(alone), name


def test_one_branch_is_a_model_of_its_own_and_keeps_its_name(tmp_path):
    whole = read(GOLDEN / "dpa3_multitask_heads.pt")
    alone = read(GOLDEN / "dpa3_multitask_heads.pt", "scan")
    assert alone.tasks == ("scan",)
    assert torch.equal(alone.heads[0].nets[0].out.weight, whole.heads[1].nets[0].out.weight)
    write(alone, tmp_path / "scan.pt")
    params = stored(tmp_path / "scan.pt")["_extra_state"]["model_params"]
    assert "model_dict" not in params
    assert read(tmp_path / "scan.pt").tasks == ("scan",)
    worst = disagreements(load(tmp_path / "scan.pt"), "dpa3_multitask_heads", "scan")
    assert max(worst.values()) < 1e-10, worst


def test_branch_that_is_not_there_is_named():
    with pytest.raises(CheckpointError, match=r"no branch 'scam' \(did you mean 'scan'\?\); it has pbe, scan"):
        read(GOLDEN / "dpa3_multitask_heads.pt", "scam")


def test_branches_that_one_file_stores_once_share_their_head(tmp_path):
    content = torch.load(GOLDEN / "dpa3_multitask_heads.pt", weights_only=True)
    state = content["model"]
    for name in [name for name in state if name.startswith("model.scan.") and ".filter_layers." in name]:
        state[name] = state[name.replace("model.scan.", "model.pbe.")]
    torch.save(content, tmp_path / "shared.pt")
    model = read(tmp_path / "shared.pt")
    assert model.config.head.shared
    assert len(model.heads) == 1
    write(model, tmp_path / "back.pt")
    assert_same_tensors(stored(tmp_path / "back.pt"), state)
    for name in [name for name in state if ".filter_layers." in name]:
        state[name] = state[name].clone()
    torch.save(content, tmp_path / "equal.pt")
    assert len(read(tmp_path / "equal.pt").heads) == 2, "equal numbers alone may come from equal seeds"


@pytest.mark.parametrize(
    ("config", "tasks", "message"),
    [
        (ModelConfig(backbone=SMALL, head=HEAD.model_copy(update={"subtract_vacuum": ("O",)})), ("a",), "subtract_vacuum"),
        *(
            (ModelConfig(backbone=SMALL, head=HEAD), (name, "c"), f"task '{name}': PyTorch takes")
            for name in ("a.b", "", "train")
        ),
        (ModelConfig(backbone=SMALL.model_copy(update={"angle_sel": 61}), head=HEAD), ("a",), r"angle_sel \(61\)"),
    ],
)
def test_what_deepmd_kit_has_not_is_refused_by_name(tmp_path, config, tasks, message):
    with pytest.raises(CheckpointError, match=message):
        write(Potential(config, ("O", "H"), tasks), tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


def test_names_that_deepmd_kit_takes_are_written(tmp_path):
    names = ("PBE/def2", "r2SCAN x", "é:1")
    assert all(torch.nn.ModuleDict({name: torch.nn.Identity()}) for name in names)
    model = Potential(ModelConfig(backbone=SMALL, head=HEAD), ("O", "H"), names)
    write(model, tmp_path / "model.pt")
    assert read(tmp_path / "model.pt").tasks == names


def test_one_branch_keeps_what_deepmd_kit_alone_uses(tmp_path):
    content = torch.load(GOLDEN / "dpa3_multitask_heads.pt", weights_only=True)
    content["model"]["model.scan.min_nbor_dist"] = torch.tensor(0.875, dtype=torch.float64)
    torch.save(content, tmp_path / "in.pt")
    whole = read(tmp_path / "in.pt")
    for alone in (read(tmp_path / "in.pt", "scan"), only_tasks(whole, ["scan"])):
        state = state_from_potential(alone)
        assert state["model.Default.min_nbor_dist"] == 0.875
        params, want = state["_extra_state"]["model_params"], content["model"]["_extra_state"]["model_params"]
        assert {**params, "info": None} == {**want["model_dict"]["scan"], "info": None}


def test_file_appears_whole_or_not_at_all(tmp_path):
    model = Potential(ModelConfig(backbone=SMALL, head=HEAD), ("O", "H"))
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path / "nowhere" / "model.pt"))):
        write(model, tmp_path / "nowhere" / "model.pt")
    with pytest.raises(CheckpointError, match=r"name it model\.pt"):
        write(model, tmp_path / "model.ckpt")
    assert not list(tmp_path.iterdir())


def test_writing_leaves_the_model_as_it_is():
    model = read(GOLDEN / "dpa3_multitask_heads.pt")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    metadata = copy.deepcopy(model.metadata)
    state = state_from_potential(model)
    state["_extra_state"]["model_params"]["model_dict"]["pbe"].clear()
    assert model.metadata == metadata
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
