"""``input.json`` <-> recipe: every key is translated, named in a note, or refused by its path.

``inputs/`` holds inputs as deepmd-kit ships them for its four architectures. Defaults, and which keys there are: argument
checks of deepmd-kit 3.2.0 (``utils.argcheck.normalize`` after ``utils.compat.update_deepmd_input``, as in ``dp train``).
"""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest

from lamella.data.sample import BatchSpec
from lamella.errors import RecipeError
from lamella.models.dpa3 import DPA3Config
from lamella.models.se_a import SeAConfig
from lamella.train.deepmd_input import Translation, is_input, read_input, write_input
from lamella.train.loss import LossConfig
from lamella.train.optim import Adam, AdamW
from lamella.train.recipe import checked_recipe, recipe_content
from lamella.train.schedule import ExponentialSchedule, learning_rate

INPUTS = sorted((Path(__file__).parent / "inputs").glob("*.json"))
MINIMAL: dict[str, Any] = {
    "model": {"type_map": ["O", "H"], "descriptor": {"type": "se_e2_a", "sel": [46, 92]}, "fitting_net": {}},
    "learning_rate": {"start_lr": 1e-3},
    "loss": {},
    "training": {"training_data": {"systems": ["water"]}, "numb_steps": 1000},
}
DESCRIPTORS: dict[str, dict[str, Any]] = {
    "se_e2_a": {"type": "se_e2_a"},
    "se_a": {"type": "se_a", "sel": "auto:1.3"},
    "se_atten": {"type": "se_atten", "sel": 80},
    "se_atten_v2": {"type": "se_atten_v2"},
    "dpa2": {
        "type": "dpa2",
        "repinit": {"rcut": 6.0, "rcut_smth": 0.5, "nsel": "auto"},
        "repformer": {"rcut": 4.0, "rcut_smth": 3.5, "nsel": 40},
    },
    "dpa3": {
        "type": "dpa3",
        "repflow": {"e_rcut": 6.0, "e_rcut_smth": 5.0, "e_sel": 100, "a_rcut": 4.0, "a_rcut_smth": 3.0, "a_sel": "auto"},
    },
}


def changed(path: str, value: Any, base: dict[str, Any] = MINIMAL) -> dict[str, Any]:
    """A copy with one dotted key set."""
    content = copy.deepcopy(base)
    *above, name = path.split(".")
    holder = content
    for part in above:
        holder = holder.setdefault(part, {})
    holder[name] = value
    return content


def read(folder: Path, content: dict[str, Any]) -> Translation:
    path = folder / "input.json"
    path.write_text(json.dumps(content))
    return read_input(path)


def refused(folder: Path, content: dict[str, Any]) -> str:
    with pytest.raises(RecipeError) as caught:
        read(folder, content)
    message = str(caught.value)
    assert message.startswith(str(folder / "input.json"))
    return message


def multi_task() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(__file__).parent / "inputs" / "multi_task.json").read_text())
    return content


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.stem)
def test_shipped_inputs_come_back_from_a_recipe_as_the_same_training(tmp_path: Path, path: Path) -> None:
    recipe = read_input(path).recipe
    content, _ = write_input(recipe)
    assert read(tmp_path, content).recipe == recipe


@pytest.mark.parametrize("descriptor", DESCRIPTORS.values(), ids=DESCRIPTORS)
def test_recipes_come_back_from_an_input(tmp_path: Path, descriptor: dict[str, Any]) -> None:
    recipe = read(tmp_path, changed("model.descriptor", descriptor)).recipe
    content = recipe_content(recipe)
    content["schedule"] = {"kind": "wsd", "stop_lr": 1e-6, "warmup_steps": 30, "warmup_start": 0.1, "decay_fraction": 0.3}
    content["optimizer"] = {"kind": "adamw", "lr": 2e-3, "betas": [0.8, 0.99], "weight_decay": 0.01, "clip": 3.0}
    content["batch"] = {"frames": 3}
    content["training"] |= {"ema": 0.99, "keep": 2, "log_every": 7, "save_every": 11, "valid_every": 11, "tensorboard": True}
    content["tasks"]["default"]["loss"] = {"kind": "huber", "force_error": "vector", "huber_delta": [0.1, 0.2, 0.3]}
    content["tasks"]["default"]["baseline"] = {"O": -400.5, "H": -12.25}
    other = checked_recipe(content, "test")
    assert other != recipe
    assert read(tmp_path, write_input(other)[0]).recipe == other


def test_absent_keys_mean_what_they_mean_to_deepmd_kit(tmp_path: Path) -> None:
    recipe = read(tmp_path, MINIMAL).recipe
    task = recipe.tasks["default"]
    assert recipe.model.backbone == SeAConfig(
        sel={"O": 46, "H": 92}, neurons=(10, 20, 40), axis=4, one_sided=False, zero_mean=False
    )
    assert recipe.model.head.hidden == (120, 120, 120)
    assert (recipe.model.head.activation, recipe.model.head.timestep) == ("tanh", True)
    assert (recipe.dtype, recipe.elements) == ("float64", ("O", "H"))
    assert recipe.schedule == ExponentialSchedule(stop_lr=5e-8)
    assert recipe.optimizer == Adam(lr=1e-3, clip=None)
    assert task.loss == LossConfig(energy=(0.02, 1.0), forces=(1000.0, 1.0), virial=(0.0, 0.0))
    assert (task.valid, task.valid_fraction, task.baseline) == (None, 0.0, "least_squares")
    assert recipe.batch == BatchSpec(full_atoms=32)
    assert (recipe.training.steps, recipe.training.save_every, recipe.training.log_every) == (1000, 1000, 1000)
    assert (recipe.training.keep, recipe.training.ema, recipe.training.tensorboard) == (5, None, False)


def test_shipped_dpa3_input_is_read_in_full() -> None:
    recipe = read_input(Path(__file__).parent / "inputs" / "dpa3.json").recipe
    assert recipe.model.backbone == DPA3Config()  # whose defaults are this example's
    assert recipe.optimizer == AdamW(lr=1e-3)
    assert recipe.dtype == "float32"
    assert recipe.seed == 10
    assert recipe.training.steps == 1_000_000
    assert recipe.tasks["default"].loss == LossConfig()
    assert recipe.training.log_every == 100
    assert [Path(path).name for path in recipe.tasks["default"].train] == ["data_0", "data_1"]


def test_numbers_in_exponential_notation_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "input.json"
    path.write_text(json.dumps(MINIMAL).replace("0.001", "1e-3"))
    assert '"start_lr": 1e-3' in path.read_text()
    assert read_input(path).recipe.optimizer.lr == 1e-3


OPTIONS: dict[str, dict[str, Any]] = {
    "learning_rate": {
        "type": "exp", "stop_lr": 1e-5, "warmup_steps": 0, "warmup_start_factor": 0.0, "scale_by_worker": "linear",
        "decay_steps": 5000, "decay_rate": 0.9, "smooth": False,
    },
    "optimizer": {"type": "Adam", "adam_beta1": 0.9, "adam_beta2": 0.999, "weight_decay": 0.0},
    "loss": {
        "type": "ener", "start_pref_e": 0.02, "limit_pref_e": 1, "start_pref_f": 1000, "limit_pref_f": 1, "start_pref_v": 0,
        "limit_pref_v": 0, "start_pref_h": 0, "limit_pref_h": 0, "start_pref_ae": 0, "limit_pref_ae": 0, "start_pref_pf": 0,
        "limit_pref_pf": 0, "use_default_pf": False, "relative_f": None, "enable_atom_ener_coeff": False, "start_pref_gf": 0,
        "limit_pref_gf": 0, "numb_generalized_coord": 0, "use_huber": False, "loss_func": "mse", "f_use_norm": False,
        "huber_delta": 0.01, "intensive_ener_virial": False,
    },
    "training.training_data": {
        "systems": ["water"], "rglob_patterns": None, "batch_size": "auto", "auto_prob": "prob_sys_size", "sys_probs": None,
        "min_pair_dist": 0.0, "set_prefix": "set",
    },
    "training.validation_data": {
        "systems": ["water"], "rglob_patterns": None, "batch_size": "auto", "auto_prob": "prob_sys_size", "sys_probs": None,
        "numb_btch": 1, "set_prefix": "set",
    },
    "training": {
        "stat_file": "s.hdf5", "stat_file_mode": "update", "numb_steps": 10, "seed": 3, "disp_file": "lcurve.out",
        "disp_freq": 1000, "save_freq": 1000, "save_dir": None, "save_ckpt": "model.ckpt", "max_ckpt_keep": 5,
        "ckpt_keep_ratio": None, "enable_ema": False, "ema_decay": 0.999, "ema_ckpt_keep": None,
        "change_bias_after_training": False, "disp_training": True, "time_training": True, "disp_avg": False,
        "profiling": False, "profiling_file": "timeline.json", "enable_profiler": False, "tensorboard": False,
        "tensorboard_log_dir": "log", "tensorboard_freq": 1, "gradient_max_norm": 5.0, "acc_freq": 1, "zero_stage": 0,
        "neighbor_graph_method": "auto", "enable_compile": False, "enable_tf32": False,
    },
    "validating": {
        "full_validation": False, "ema_full_validation": False, "validation_freq": 5000, "save_best": True,
        "save_best_dir": None, "max_best_ckpt": 1, "validation_metric": "E:MAE", "full_val_file": "val.log",
        "full_val_start": 0.5, "compiled_infer": False, "tf32_infer": False, "amp_infer": False,
    },
    "model": {
        "data_stat_nbatch": 10, "data_stat_protect": 0.01, "data_bias_nsample": 10, "pair_exclude_types": [],
        "atom_exclude_types": [], "preset_out_bias": None, "srtab_add_bias": True, "type": "standard",
        "model_branch_alias": [], "info": {}, "bridging_method": "None", "bridging_r_inner": 0.5, "bridging_r_outer": 0.8,
    },
    "model.descriptor": {
        "type": "se_e2_a", "sel": [46, 92], "rcut": 6.0, "rcut_smth": 0.5, "neuron": [10, 20, 40], "axis_neuron": 4,
        "activation_function": "tanh", "resnet_dt": False, "type_one_side": False, "precision": "default", "trainable": True,
        "seed": 1, "exclude_types": [], "env_protection": 0.0, "set_davg_zero": False,
    },
    "model.fitting_net": {
        "type": "ener", "numb_fparam": 0, "numb_aparam": 0, "default_fparam": None, "dim_case_embd": 0,
        "neuron": [120, 120, 120], "activation_function": "tanh", "precision": "default", "resnet_dt": True,
        "trainable": True, "rcond": None, "seed": 1, "atom_ener": [], "use_aparam_as_mask": False,
    },
}  # fmt: skip
"""Every key of deepmd-kit's PyTorch trainer, at a value that asks for nothing."""


@pytest.mark.parametrize(("place", "options"), OPTIONS.items(), ids=OPTIONS)
def test_every_key_of_deepmd_kit_is_known(tmp_path: Path, place: str, options: dict[str, Any]) -> None:
    content = copy.deepcopy(MINIMAL)
    for key, value in options.items():
        content = changed(f"{place}.{key}", value, content)
    recipe = read(tmp_path, content).recipe
    assert recipe.tasks["default"].loss == read(tmp_path, MINIMAL).recipe.tasks["default"].loss


@pytest.mark.parametrize(
    "place",
    ["", "learning_rate", "optimizer", "loss", "training", "training.training_data", "validating", "model",
     "model.descriptor", "model.fitting_net"],
)  # fmt: skip
def test_unknown_key_is_refused_by_its_path(tmp_path: Path, place: str) -> None:
    path = f"{place}.colour".strip(".")
    assert path in refused(tmp_path, changed(path, "blue"))
    assert "did you mean 'rcut_smth'?" in refused(tmp_path, changed("model.descriptor.rcut_smt", 0.5))
    assert read(tmp_path, changed(f"{place}._colour".strip("."), "blue")).recipe == read(tmp_path, MINIMAL).recipe


REFUSED: list[tuple[str, Any, str]] = [
    ("optimizer.type", "HybridMuon", "use Adam or AdamW"),
    ("training.opt_type", "LKF", "use Adam or AdamW"),
    ("learning_rate.type", "polynomial", "exp, cosine, wsd"),
    ("loss.type", "ener_spin", "ener"),
    ("loss.loss_func", "rmse", "mse, mae"),
    ("loss.enable_atom_ener_coeff", True, "plain sum"),
    ("loss.start_pref_h", 1.0, "Hessian"),
    ("loss.f_use_norm", True, "use_huber"),
    ("loss.relative_f", 0.0, "0.1"),
    ("training.numb_epoch", 3, "numb_steps"),
    ("training.change_bias_after_training", True, "dp change-bias"),
    ("training.mixed_precision", {"compute_prec": "bfloat16"}, "precision"),
    ("training.training_data.batch_size", [1, 2], "one number"),
    ("training.training_data.batch_size", "large:4", "auto:N"),
    ("training.training_data.set_prefix", "batch", "set.*"),
    ("training.training_data.batch_size", 0, "auto:N"),
    ("training.training_data.systems", "data.lmdb", "LMDB"),
    ("training.training_data.rglob_patterns", ["*"], "list the systems"),
    ("training.training_data.min_pair_dist", 0.5, "data lint"),
    ("training.training_data.sys_probs", [0.5, 0.5], "twice"),
    ("training.training_data.auto_prob", "prob_uniform", "twice"),
    ("model.descriptor.precision", "bfloat16", "float32 or float64"),
    ("model.descriptor.trainable", False, "freeze"),
    ("model.fitting_net.trainable", [True, True, True, False], "freeze"),
    ("model.fitting_net.numb_aparam", 1, "numb_aparam"),
    ("model.fitting_net.rcond", 1e-3, "remove it"),
    ("model.descriptor.type", "se_e3", "three-body descriptor"),
    ("model.type", "linear_ener", "one descriptor and one fitting net"),
    ("model.preset_out_bias", {"energy": [-400.0, None]}, "give all"),
    ("model.finetune_head", "SPICE", "fine-tune"),
    ("model.type_map", ["O", "D1"], "chemical symbol"),
    ("nvnmd", {"enable": True}, "NVNMD"),
]


@pytest.mark.parametrize(("path", "value", "words"), REFUSED)
def test_what_lamella_does_not_do_is_refused_by_its_path_with_advice(
    tmp_path: Path, path: str, value: Any, words: str
) -> None:
    message = refused(tmp_path, changed(path, value))
    assert path.rpartition(".")[2] in message
    assert words in message


def test_comments_are_passed_over_at_any_depth(tmp_path: Path) -> None:
    content = multi_task()
    plain = read(tmp_path, content)
    places = ["model.shared_dict", "model.shared_dict.des", "model.model_dict", "loss_dict", "training.model_prob",
              "training.data_dict", "training.data_dict.water_1.training_data"]  # fmt: skip
    for place in places:
        content = changed(f"{place}._comment", "that's all", content)
    assert read(tmp_path, content) == plain
    inner = {"model": {**MINIMAL["model"], "descriptor": DESCRIPTORS["dpa3"]}}
    commented = changed("model.descriptor.repflow._comment", " that's all", {**MINIMAL, **inner})
    assert read(tmp_path, commented).recipe == read(tmp_path, {**MINIMAL, **inner}).recipe


@pytest.mark.parametrize(("part", "other"), [("descriptor", "fitting_net"), ("fitting_net", "descriptor")])
def test_two_precisions_become_the_wider_one_with_a_note(tmp_path: Path, part: str, other: str) -> None:
    translation = read(tmp_path, changed(f"model.{part}.precision", "float32"))
    assert translation.recipe.dtype == "float64"
    assert [note for note in translation.notes if note.startswith(f"model.{part}.precision: float64 here")]
    assert not [note for note in translation.notes if note.startswith(f"model.{other}.precision")]


def test_wrong_types_are_refused_by_their_path(tmp_path: Path) -> None:
    for path, value in (("learning_rate.start_lr", "fast"), ("training.numb_steps", 1.5), ("loss.use_huber", 1)):
        assert f"{path} = {value!r}" in refused(tmp_path, changed(path, value))
    for path, value in (("training.gradient_max_norm", float("nan")), ("learning_rate.start_lr", float("inf"))):
        assert f"{path} = {value!r}: not a finite number" in refused(tmp_path, changed(path, value))
    assert "learning_rate.stop_lr = -1" in refused(tmp_path, changed("learning_rate.stop_lr", -1))
    assert "learning_rate.start_lr is missing" in refused(tmp_path, changed("learning_rate", {}))
    assert "training.numb_steps and stop_batch" in refused(tmp_path, changed("training.stop_batch", 5))
    assert "input_v2_compat.json" in refused(tmp_path, changed("training.systems", ["a"]))


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({}, "squared"),
        ({"intensive_ener_virial": True}, "intensive"),
        ({"use_huber": True, "intensive_ener_virial": True}, "huber"),
        ({"loss_func": "mae", "intensive_ener_virial": True}, "mae"),
        ({"loss_func": "mae", "use_huber": True}, "mae"),
    ],
)
def test_kind_of_loss(tmp_path: Path, settings: dict[str, Any], kind: str) -> None:
    assert read(tmp_path, changed("loss", settings)).recipe.tasks["default"].loss.kind == kind


def test_term_with_one_prefactor_of_zero_is_off_as_in_deepmd_kit(tmp_path: Path) -> None:
    translation = read(tmp_path, changed("loss", {"start_pref_v": 0.02, "limit_pref_v": 0.0}))
    assert translation.recipe.tasks["default"].loss.virial == (0.0, 0.0)
    assert any("loss.start_pref_v" in note and "off" in note for note in translation.notes)
    content = recipe_content(translation.recipe)
    content["tasks"]["default"]["loss"]["energy"] = [1.0, 0.0]
    with pytest.raises(RecipeError, match=r"tasks\.default\.loss\.energy"):
        write_input(checked_recipe(content, "test"))


def test_optimizer_keys_of_version_31_win_and_adamw_without_weight_decay_has_none(tmp_path: Path) -> None:
    """deepmd-kit 3.2.0 fills in Adam's weight decay, 0, before AdamW's default of 0.001 is looked up."""
    legacy = changed("training.opt_type", "AdamW", changed("optimizer", {"adam_beta1": 0.8, "weight_decay": 0.5}))
    optimizer = read(tmp_path, changed("training.weight_decay", 0.01, legacy)).recipe.optimizer
    assert optimizer == AdamW(lr=1e-3, betas=(0.8, 0.999), weight_decay=0.01, clip=None)
    translation = read(tmp_path, changed("optimizer.type", "AdamW"))
    assert translation.recipe.optimizer == AdamW(lr=1e-3, weight_decay=0.0, clip=None)
    assert any("optimizer.weight_decay" in note for note in translation.notes)


RATES: dict[str, tuple[dict[str, Any], list[float]]] = {
    "default": ({}, [0.001, 0.000410116554781723, 0.00035350197982797195, 1.4498404187020107e-06, 5.520524025612785e-08]),
    "rate": ({"decay_steps": 30, "decay_rate": 0.5, "stop_lr": 1e-5}, [0.001, 0.001, 0.001, 6.25e-05, 1.5625e-05]),
    "rate, long": ({"decay_steps": 500, "decay_rate": 0.5, "stop_lr": 1e-5}, [0.001] * 5),
    "smooth": (
        {"decay_steps": 30, "smooth": True, "stop_lr": 1e-5},
        [0.001, 0.0006309573444801934, 0.0006165950018614822, 4.677351412871984e-05, 1.0232929922807548e-05],
    ),
    "warm-up": (
        {"decay_steps": 30, "stop_lr": 1e-5, "warmup_steps": 20, "warmup_start_factor": 0.25},
        [0.00025, 0.001, 0.001, 0.00010000000000000002, 2.1544346900318844e-05],
    ),
    "warm-up ratio": (
        {"stop_lr": 1e-5, "warmup_ratio": 0.1},
        [0.0, 0.001, 0.001, 5.695810810737693e-05, 1.0525002852777347e-05],
    ),
    "to zero": ({"decay_steps": 30, "stop_lr": 0.0}, [0.001, 0.001, 0.001, 6.309573444801928e-08, 5.011872336272717e-10]),
    "cosine to zero": (
        {"type": "cosine", "stop_lr": 0.0, "warmup_steps": 20},
        [0.0, 0.001, 0.0009999238475781956, 0.0003046344357553632, 7.615242180436521e-08],
    ),
    "cosine": (
        {"type": "cosine", "stop_lr_ratio": 0.01},
        [0.001, 0.0009757729755661011, 0.000973312252619635, 0.00025974795912595824, 1.006106692157801e-05],
    ),
    "wsd": (
        {"type": "wsd", "stop_lr": 1e-5, "warmup_steps": 21, "decay_phase_ratio": 0.25},
        [0.0, 0.0009523809523809524, 0.001, 0.001, 1.0201999591920017e-05],
    ),
    "wsd, cosine": (
        {"type": "wsd", "stop_lr": 1e-5, "decay_type": "cosine"},
        [0.001, 0.001, 0.001, 0.001, 1.609427140540686e-05],
    ),
    "wsd, linear": (
        {"type": "wsd", "stop_lr": 1e-5, "decay_type": "linear", "decay_phase_ratio": 0.5},
        [0.001, 0.001, 0.001, 0.0006732999999999999, 1.9899999999999996e-05],
    ),
}
"""Learning rates after 0, 20, 21, 133, 199 of 200 steps from 1e-3: ``BaseLR(start_lr=1e-3, num_steps=200, **settings)``
of ``deepmd.dpmodel.utils.learning_rate``, deepmd-kit 3.2.0."""


@pytest.mark.parametrize(("settings", "expected"), RATES.values(), ids=RATES)
def test_learning_rates_are_those_of_deepmd_kit(tmp_path: Path, settings: dict[str, Any], expected: list[float]) -> None:
    content = changed("learning_rate", {"start_lr": 1e-3, **settings}, changed("training.numb_steps", 200))
    recipe = read(tmp_path, content).recipe
    rates = [learning_rate(recipe.schedule, t, 200, recipe.optimizer.lr) for t in (0, 20, 21, 133, 199)]
    assert rates == pytest.approx(expected, rel=1e-9)
    again = read(tmp_path, write_input(recipe)[0]).recipe
    assert again.schedule == recipe.schedule


@pytest.mark.parametrize(
    ("size", "bounds"),
    [
        (4, {"frames": 4}),
        ([2, 2], {"frames": 2}),
        ("auto", {"full_atoms": 32}),
        ("auto:128", {"full_atoms": 128}),
        ("mixed:4", {"frames": 4}),
        ("max:200", {"atoms": 200}),
        ("filter:200", {"atoms": 200}),
    ],
)
def test_batch_sizes(tmp_path: Path, size: Any, bounds: dict[str, int]) -> None:
    translation = read(tmp_path, changed("training.training_data.batch_size", size))
    assert translation.recipe.batch == BatchSpec(**bounds)
    assert any("batch_size" in note for note in translation.notes) == ("atoms" in bounds)


def test_notes_name_every_key_that_is_left_out(tmp_path: Path) -> None:
    content = changed("training.disp_file", "lcurve.out", changed("model.descriptor.seed", 5))
    content = changed("training.validation_data", {"systems": ["v"], "numb_btch": 3}, content)
    notes = read(tmp_path, changed("model.data_stat_nbatch", 20, content)).notes
    for key in (
        "training.disp_file",
        "model.descriptor.seed",
        "training.validation_data.numb_btch",
        "model.data_stat_nbatch",
    ):
        assert any(note.startswith(key) for note in notes), key


def test_paths_stay_as_they_were_written(tmp_path: Path) -> None:
    content = changed("training.training_data.systems", ["../data/a", "b"])
    translation = read(tmp_path, changed("training.validation_data", {"systems": "../v"}, content))
    task = translation.content["tasks"]["default"]
    assert (task["train"], task["valid"]) == (["../data/a", "b"], ["../v"])
    assert translation.recipe.tasks["default"].train[1] == str(Path.cwd() / "b")
    written, _ = write_input(translation.recipe)
    assert written["training"]["training_data"]["systems"] == ["../data/a", "b"]


def test_several_tasks_share_backbone_and_head(tmp_path: Path) -> None:
    content = multi_task()
    recipe = read(tmp_path, content).recipe
    assert list(recipe.tasks) == ["water_1", "water_2"]
    assert recipe.model.head.task_dim == 2
    assert recipe.tasks["water_1"].batch == BatchSpec(full_atoms=32)
    assert recipe.tasks["water_2"].batch == BatchSpec(frames=4)
    assert [task.weight for task in recipe.tasks.values()] == [0.5, 0.5]
    content["model"]["shared_dict"]["fit"]["dim_case_embd"] = 0
    assert "dim_case_embd" in refused(tmp_path, content)
    for name in ("water_1", "water_2"):
        content["model"]["model_dict"][name]["fitting_net"] = dict(content["model"]["shared_dict"]["fit"])
    recipe = read(tmp_path, content).recipe
    assert recipe.model.head.task_dim == 0
    assert read(tmp_path, write_input(recipe)[0]).recipe == recipe


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("model.model_dict.water_2.descriptor", "des:1", "as a whole"),
        ("model.model_dict.water_2.descriptor", "desc", "it has tm, des, fit"),
        ("model.model_dict.water_2.fitting_net", {"dim_case_embd": 3, "precision": "float32"}, "differ in their"),
        ("model.model_dict.water_2.type_map", ["H", "O"], "type_map"),
        ("model.model_dict.water_2.finetune_head", "RANDOM", "water_2.finetune_head"),
        ("training.model_prob", {"water_1": 1.0}, "water_2"),
        ("training.model_prob", {"water_1": 1.0, "water_2": 1.0, "w": 1.0}, "w is not in"),
        ("training.model_prob", {}, "numbers of systems"),
        ("training.data_dict.water_2.training_data.colour", 1, "training.data_dict.water_2.training_data.colour"),
        ("loss_dict.water_2.colour", 1, "loss_dict.water_2.colour"),
        ("loss_dict.water_3", {}, "loss_dict.water_3"),
    ],
)
def test_what_tasks_cannot_do_is_refused_by_its_path(tmp_path: Path, path: str, value: Any, words: str) -> None:
    assert words in refused(tmp_path, changed(path, value, multi_task()))


def test_keys_beside_the_branches_hold_for_all_of_them(tmp_path: Path) -> None:
    content = changed("model.pair_exclude_types", [[0, 1]], multi_task())
    recipe = read(tmp_path, content).recipe
    assert recipe.model.excluded_pairs == (("O", "H"),)
    content["model"]["model_dict"]["water_2"]["pair_exclude_types"] = []
    assert "differ in their options" in refused(tmp_path, content)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"elements": None}, "elements"),
        ({"batch": {"edges": 100}}, "tasks.default.batch"),
        ({"tasks": {"default": {"train": "a", "valid_fraction": 0.2}}}, "tasks.default.valid_fraction"),
        ({"tasks": {"default": {"train": "a", "valid_fraction": 0, "keys": {"energy": "E"}}}}, "tasks.default.keys"),
        (
            {"tasks": {"default": {"train": "a", "valid_fraction": 0, "baseline": "isolated_atoms"}}},
            "tasks.default.baseline",
        ),
        ({"tasks": {"default": {"train": "a", "valid_fraction": 0, "baseline": {"O": 1.0}}}}, "tasks.default.baseline"),
    ],
)
def test_what_deepmd_kit_does_not_do_is_refused_by_our_key(tmp_path: Path, change: dict[str, Any], key: str) -> None:
    content = recipe_content(read(tmp_path, MINIMAL).recipe) | change
    with pytest.raises(RecipeError, match=key):
        write_input(checked_recipe(content, "test"))


def test_data_deepmd_kit_cannot_read_is_named(tmp_path: Path) -> None:
    content = recipe_content(read(tmp_path, MINIMAL).recipe)
    content["tasks"]["default"]["train"] = ["embedded:water_gfn2:train", "data.xyz", "data.hdf5", "folder"]
    _, notes = write_input(checked_recipe(content, "test"))
    assert [note for note in notes if "deepmd/npy" in note] == [notes[0], notes[1]]
    assert "embedded:water_gfn2:train" in notes[0]
    assert "data.xyz" in notes[1]


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.stem)
def test_values_of_any_wrong_kind_are_refused_not_stumbled_over(tmp_path: Path, path: Path) -> None:
    base = json.loads(path.read_text())
    for key in places(base):
        for value in ([], {}, "x", -1, float("nan"), [None], 1.5):
            with contextlib.suppress(RecipeError):  # any other exception is a defect
                write_input(read(tmp_path, replaced(base, key, value)).recipe)


def places(content: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where there are values, all levels."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [place for key, value in items for place in ((*above, key), *places(value, (*above, key)))]


def replaced(base: Any, key: tuple[Any, ...], value: Any) -> Any:
    content = copy.deepcopy(base)
    holder = content
    for part in key[:-1]:
        holder = holder[part]
    holder[key[-1]] = value
    return content


def test_inputs_and_recipes_are_told_apart(tmp_path: Path) -> None:
    assert is_input(MINIMAL)
    assert is_input(multi_task())
    assert not is_input(recipe_content(read(tmp_path, MINIMAL).recipe))
