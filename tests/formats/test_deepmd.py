"""deepmd-kit's files: every option translated or refused by name, every tensor accounted for, nothing executed."""

from __future__ import annotations

import copy
import os
import warnings
import zipfile

import numpy as np
import pytest
import torch
from ase.data import chemical_symbols
from hypothesis import given, settings
from hypothesis import strategies as st

from golden_models import GOLDEN, golden_frames
from lamella.errors import CheckpointError, LamellaError
from lamella.formats.deepmd import model_config, read
from lamella.models.potential import Potential
from lamella.types import Frame

BACKBONE = "model.Default.atomic_model.descriptor.repflows."
REQUIRED = {"e_rcut": 6.0, "e_rcut_smth": 5.3, "e_sel": 120, "a_rcut": 4.0, "a_rcut_smth": 3.5, "a_sel": 30}


def checkpoint(name="order1"):
    """The content of a golden checkpoint, to be changed."""
    return torch.load(GOLDEN / f"{name}.pt", weights_only=True)


def write(folder, content):
    path = folder / "model.pt"
    torch.save(content, path)
    return path


def params_of(content):
    return content["model"]["_extra_state"]["model_params"]


def config_of(repflow=None, descriptor=None, fitting=None, model=None):
    params = {
        "type_map": ["O", "H"],
        "descriptor": {"type": "dpa3", "repflow": {**REQUIRED, **(repflow or {})}, **(descriptor or {})},
        "fitting_net": fitting or {},
        **(model or {}),
    }
    untouched = copy.deepcopy(params)
    config = model_config(params, "here")
    assert params == untouched, "the caller's configuration must not change"
    return config


def test_defaults_are_those_of_deepmd_kit():
    config = config_of()
    b, h = config.backbone, config.head
    assert (b.node_dim, b.edge_dim, b.angle_dim, b.layers, b.axis, b.messages) == (128, 64, 64, 6, 4, 1)
    assert (b.angle_compression, b.angle_compression_edge, b.angle_compression_kind) == (0, 1, "linear")
    assert (b.update_angle, b.smooth_edge_update, b.edge_init, b.switch) == (True, False, "switched_inverse", "polynomial")
    assert (b.update_style, b.update_step, b.env_std) == ("res_residual", 0.1, 0.3)
    assert (b.dynamic_sel, b.sel_reduction) == (False, 10.0)
    assert (b.activation, b.concat_embedding, b.embedding_bias) == ("silu", False, False)
    assert (h.hidden, h.activation, h.timestep, h.task_dim) == ((128, 128, 128), "tanh", True, 0)


def test_input_json_has_defaults_of_its_own():
    """deepmd-kit's classes and its input.json disagree on the width of a fitting net that is not given."""
    params = {"type_map": ["O", "H"], "descriptor": {"type": "dpa3", "repflow": REQUIRED}}
    assert model_config(params, "here").head.hidden == (128, 128, 128)
    assert model_config(params, "here", json=True).head.hidden == (120, 120, 120)


@pytest.mark.parametrize(
    ("alias", "field", "value"), [("edge_use_dist", "edge_init", "distance"), ("use_env_envelope", "switch", "exponential")]
)
def test_older_names_mean_the_same(alias, field, value):
    assert getattr(config_of({alias: True}).backbone, field) == value


def test_older_name_of_the_activation_means_the_same():
    model = config_of(descriptor={"activation_function": "custom_silu:3.0"})
    assert model.backbone.activation == "custom_silu:3.0"


def test_published_dpa31_has_the_published_number_of_parameters():
    """3 268 838 and 4 810 679 are published, with 118 energy biases and a 31-wide task code, which are not trained."""
    shape = {"a_dim": 32, "a_compress_rate": 1, "a_compress_e_rate": 2, "a_compress_use_split": True}
    head = {"neuron": [240, 240, 240], "resnet_dt": True, "activation_function": "silut:3.0"}
    for layers, case, trained, published in ((16, 31, 3_268_689, 3_268_838), (24, 0, 4_810_561, 4_810_679)):
        config = config_of({**shape, "nlayers": layers}, fitting={**head, "dim_case_embd": case})
        with torch.device("meta"):
            model = Potential(config, chemical_symbols[1:])
        assert model.parameter_count() == trained == published - 118 - case


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("repflow", "brand_new_option", 1),
        ("descriptor", "brand_new_option", "x"),
        ("fitting", "numb_aparam", 1),
        ("fitting", "case_film_embd", True),
        ("fitting", "exclude_types", [1]),
        ("model", "use_srtab", "table.txt"),
        ("model", "spin", {"use_spin": [True]}),
        ("model", "lora", {"rank": 4}),
        ("model", "bridging_method", "ZBL"),
        ("model", "type", "dp_zbl"),
        ("model", "brand_new_option", 1),
    ],
)
def test_option_that_lamella_does_not_run_is_refused_by_name(part, key, value):
    with pytest.raises(CheckpointError, match=f"{key}.*use deepmd-kit"):
        config_of(**{part: {key: value}})


@pytest.mark.parametrize("value", [None, [], False])
def test_option_switched_off_is_accepted(value):
    config_of(descriptor={"exclude_types": value}, fitting={"atom_ener": value}, model={"pair_exclude_types": value})


def test_options_of_the_model_and_its_head_are_translated():
    config = config_of(
        descriptor={"exclude_types": [[0, 1]], "env_protection": 1e-3, "use_econf_tebd": True}
        | {"add_chg_spin_ebd": True, "default_chg_spin": [1, 2]},
        fitting={"numb_fparam": 2, "default_fparam": [0.5, 1.5], "atom_ener": [1.0, None], "dim_case_embd": 3},
        model={"pair_exclude_types": [[0, 0]], "atom_exclude_types": [1]},
    )
    assert (config.excluded_pairs, config.excluded_atoms) == ((("O", "O"),), ("H",))
    backbone, head = config.backbone, config.head
    assert (backbone.excluded_pairs, backbone.protection, backbone.electron_embedding) == ((("O", "H"),), 1e-3, True)
    assert (backbone.charge_spin, backbone.default_charge_spin) == (True, (1.0, 2.0))
    assert (head.frame_params, head.default_frame_params, head.task_dim) == (2, (0.5, 1.5), 3)
    assert head.subtract_vacuum == ("O", "H"), "one network for all elements: all or none"


def test_vacuum_energy_of_listed_elements_is_subtracted_where_each_has_its_network():
    params = {
        "type_map": ["O", "H", "C"],
        "descriptor": {"type": "se_e2_a", "rcut": 4.0, "rcut_smth": 1.0, "sel": [5, 5, 5]},
        "fitting_net": {"atom_ener": [None, 0.0]},
    }
    assert model_config(params, "here").head.subtract_vacuum == ("H", "C"), "deepmd-kit subtracts it beyond the list's end"
    params["fitting_net"] = {"atom_ener": [None, None, None]}
    assert model_config(params, "here").head.subtract_vacuum == ()


@pytest.mark.parametrize("value", [[[0, 2]], [[-1, 0]], [["O", "H"]]])
def test_index_that_is_none_of_the_type_map_is_refused(value):
    with pytest.raises(CheckpointError, match="no index into type_map"):
        config_of(descriptor={"exclude_types": value})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["O", "HW"], "'HW' is no chemical symbol"),
        (["O", 7], "'7' is no chemical symbol"),
        (["O", "O"], "an element occurs twice"),
        ([], "no type_map of 1 to 118"),
        (["H"] * 10**5, "no type_map of 1 to 118"),
        (None, "no type_map of 1 to 118"),
    ],
)
def test_type_map_that_is_no_list_of_elements_is_refused(names, message):
    with pytest.raises(CheckpointError, match=message):
        config_of(model={"type_map": names})


@pytest.mark.parametrize("kind", ["se_e2_r", "se_e3", "hybrid", "se_e3_tebd", "dpa4", "loc_frame", None])
def test_other_descriptor_is_refused_by_name(tmp_path, kind):
    content = checkpoint()
    params_of(content)["descriptor"] = {"type": kind, "sel": [1, 2]}
    with pytest.raises(CheckpointError, match=f"descriptor {kind!r} is not one lamella runs"):
        read(write(tmp_path, content))


def test_other_fitting_is_refused_by_name(tmp_path):
    content = checkpoint()
    params_of(content)["fitting_net"]["type"] = "dipole"
    with pytest.raises(CheckpointError, match="fitting 'dipole' is not one lamella runs"):
        read(write(tmp_path, content))


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("edge_embd.bias", lambda t: t.new_zeros(7), "backbone.edge_init.bias has shape"),
        ("edge_embd.bias", lambda t: t * float("nan"), "backbone.edge_init.bias contains NaN"),
        ("edge_embd.bias", lambda t: t.float(), "backbone.edge_init.bias is torch.float32"),
        ("edge_embd.bias", lambda _: None, r"tensor atomic_model\.descriptor\.repflows\.edge_embd\.bias is missing"),
        ("edge_embd.bias", lambda _: "text", "is no tensor"),
        ("layers.0.node_self_mlp.matrix", lambda t: t[:1, :1].clone().expand(6, 6), r"claims shape \(6, 6\) of 1 stored"),
        ("mean", lambda t: t + 1, "repflows.mean is not zero"),
        ("stddev", lambda t: t + torch.arange(64.0)[:, None], "differs between neighbour slots"),
        ("stddev", lambda _: torch.zeros(3), r"repflows.stddev has shape \(3,\)"),
        ("new_part.matrix", lambda _: torch.zeros(3), "repflows.new_part.matrix is not one of a dpa3 model"),
    ],
)
def test_tensor_that_does_not_fit_is_named(tmp_path, key, change, message):
    content = checkpoint()
    value = change(content["model"].get(BACKBONE + key))
    if value is None:
        del content["model"][BACKBONE + key]
    else:
        content["model"][BACKBONE + key] = value
    with pytest.raises(CheckpointError, match=message):
        read(write(tmp_path, content))


def test_branches_that_do_not_share_their_descriptor_are_refused(tmp_path):
    content = checkpoint("dpa3_multitask_heads")
    key = "model.scan.atomic_model.descriptor.repflows.edge_embd.bias"
    content["model"][key] = content["model"][key] + 1
    with pytest.raises(CheckpointError, match="branches pbe and scan do not share their descriptor"):
        read(write(tmp_path, content))


@pytest.mark.parametrize("key", ["type_map", "fitting_net"])
def test_branches_that_differ_in_shape_are_refused(tmp_path, key):
    content = checkpoint("dpa3_multitask_heads")
    scan = params_of(content)["model_dict"]["scan"]
    scan[key] = ["H", "O"] if key == "type_map" else {**scan[key], "neuron": [4]}
    with pytest.raises(CheckpointError, match="branches pbe and scan differ"):
        read(write(tmp_path, content))


def test_checkpoint_without_deepmd_content_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="not written by dp --pt train"):
        read(write(tmp_path, {"state_dict": {}}))


@pytest.mark.parametrize("name", ["order1.pt", "frozen.pth"])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_file_cut_short_is_refused(tmp_path, name, fraction):
    content = (GOLDEN / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(CheckpointError, match=f"{name}: .*cut short"):
        read(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.pt"):
        read(tmp_path / "nowhere.pt")


class _Bomb:
    """Pickles as a call that leaves a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_code_in_a_checkpoint_is_never_run(tmp_path):
    content = checkpoint()
    params_of(content)["info"] = _Bomb(tmp_path / "mark")
    with pytest.raises(CheckpointError, match=r"asks for .*mkdir, which lamella never runs"):
        read(write(tmp_path, content))
    assert not (tmp_path / "mark").exists()


def test_archive_that_claims_fifty_gigabytes_is_refused_before_reading(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(GOLDEN / "order1.pt") as archive, zipfile.ZipFile(path, "w") as out:
        for info in archive.infolist():
            out.writestr(info.filename, archive.read(info))
        victim = next(info for info in out.infolist() if info.filename.endswith("/data/3"))
        victim.file_size = victim.compress_size = 50_000_000_000
    with pytest.raises(CheckpointError, match="claims more bytes"):
        read(path)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(["order1.pt", "frozen.pth"]), where=st.integers(0, 40_000), byte=st.integers(0, 255))
def test_damaged_byte_gives_a_model_or_a_named_error_and_nothing_else(tmp_path_factory, name, where, byte):
    content = bytearray((GOLDEN / name).read_bytes())
    content[where % len(content)] = byte
    path = tmp_path_factory.mktemp("damaged") / name
    path.write_bytes(bytes(content))
    try:
        model = read(path)
    except LamellaError as error:
        message = str(error)
        assert name in message
    else:
        assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def crowd(count, radius):
    """One atom with ``count`` neighbours around it, far enough from each other."""
    k = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * k / count), np.pi * (1 + 5**0.5) * k
    shell = radius * np.stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], 1)
    return Frame(
        np.full(count + 1, 8), np.vstack([np.zeros(3), shell]), np.zeros((3, 3)), np.zeros(3, dtype=bool), source="crowd"
    )


@pytest.mark.parametrize(("count", "radius", "slots"), [(80, 3.9, "e_sel is 64"), (40, 2.9, "a_sel is 32")])
def test_more_neighbours_than_slots_warns_once_that_deepmd_kit_differs(count, radius, slots):
    model = read(GOLDEN / "reference_defaults.pt")
    graph = model.graph([crowd(count, radius)])
    with pytest.warns(UserWarning, match=f"{slots}: deepmd-kit drops the farthest there, lamella keeps them all") as caught:
        model(graph)
    assert caught[0].filename == __file__, "the caller's line"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(graph)


def test_no_warning_where_every_neighbour_has_a_slot():
    model = read(GOLDEN / "reference_defaults.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for frame, _ in golden_frames("reference_defaults"):
            model(model.graph([frame]))
