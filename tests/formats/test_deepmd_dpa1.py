"""DPA-1's options in deepmd-kit's words: defaults of checkpoints and of input.json, older spellings, refusals."""

from __future__ import annotations

import pytest
import torch

from lamella.errors import CheckpointError
from lamella.formats.deepmd.dpa1 import DPA1_TRANSLATOR
from lamella.formats.deepmd.model import model_config, model_params
from lamella.models.dpa1 import DPA1, DPA1Config
from lamella.models.potential import ModelConfig

ELEMENTS = ("O", "H")


def backbone(descriptor, json=False, elements=ELEMENTS):
    section = {"type": "dpa1", "rcut": 6.0, "rcut_smth": 0.5, "sel": 120, **descriptor}
    params = {"type_map": list(elements), "descriptor": section, "fitting_net": {"neuron": [8]}}
    return model_config(params, "here", json).backbone


def test_checkpoint_without_options_has_the_defaults_of_the_classes():
    found = backbone({})
    assert found.smooth
    assert (found.neurons, found.axis) == ((25, 50, 100), 16)
    assert (found.one_sided, found.temperature, found.embedding_input) == (False, None, "concat")


def test_input_without_options_has_the_defaults_of_the_checker():
    found = backbone({}, json=True)
    assert not found.smooth
    assert (found.neurons, found.axis) == ((10, 20, 40), 4)


def test_se_atten_v2_is_stripped_and_smooth():
    for json, zero_mean in ((False, True), (True, False)):
        found = backbone({"type": "se_atten_v2"}, json)
        assert (found.embedding_input, found.smooth, found.zero_mean) == ("strip", True, zero_mean)


def test_older_spelling_of_stripping_wins():
    assert backbone({"stripped_type_embedding": True}).embedding_input == "strip"
    assert backbone({"stripped_type_embedding": False, "tebd_input_mode": "strip"}).embedding_input == "concat"
    assert backbone({"stripped_type_embedding": None, "tebd_input_mode": "strip"}).embedding_input == "strip"


def test_null_epsilon_is_deepmd_kits_own_and_several_sels_count_together():
    assert backbone({"ln_eps": None}).norm_eps == 1e-5
    assert backbone({"sel": [46, 92]}).sel == 138
    assert backbone({"smooth_type_embdding": False}).smooth is False


@pytest.mark.parametrize("descriptor", [{}, {"tebd_input_mode": "strip", "smooth_type_embedding": False}])
def test_mean_that_depends_on_the_order_of_atoms_is_refused_in_an_input(descriptor):
    with pytest.raises(CheckpointError, match="order of atoms"):
        backbone({"set_davg_zero": False, **descriptor}, json=True)
    # of a checkpoint the statistics themselves decide
    assert backbone({"set_davg_zero": False, **descriptor}).zero_mean
    assert not backbone({"set_davg_zero": False, **descriptor}, elements=("Si",)).zero_mean


@pytest.mark.parametrize(
    ("option", "value"),
    [("attn_mask", True), ("lmax", 5), ("spin", {"use_spin": [True]}), ("tebd_input_mode", "add"), ("unheard_of", 3)],
)
def test_what_is_not_run_is_refused_by_name(option, value):
    with pytest.raises(
        CheckpointError, match={"tebd_input_mode": "embedding_input", "lmax": "max_degree"}.get(option, option)
    ):
        backbone({option: value})


def test_options_that_ask_for_nothing_pass():
    plain = backbone({})
    assert backbone({"attn_mask": False, "lmax": 1, "spin": None, "trainable_ln": False, "seed": 7}) == plain


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"embedding_input": "strip", "zero_mean": False, "smooth": True, "excluded_pairs": (("O", "H"),), "axis": 12},
        {"attention_layers": 0, "electron_embedding": True, "embedding_bias": True, "temperature": None, "sel": 77},
        {"max_degree": 3, "attention_layers": 1},
        {"smooth": False, "one_sided": False, "timestep": True, "norm_eps": 1e-3, "protection": 0.1, "normalize": False},
    ],
)
def test_configuration_comes_back_from_deepmd_kits_words(options):
    config = ModelConfig(backbone=DPA1Config(**options))
    params = model_params(config, ELEMENTS, ("float64", "float64"))
    assert model_config(params, "here").backbone == config.backbone
    assert model_config(params, "here", json=True).backbone == config.backbone


def test_highest_degree_is_written_only_to_versions_that_know_it():
    """deepmd-kit before 3.2 takes no ``lmax``."""
    first = model_params(ModelConfig(backbone=DPA1Config()), ELEMENTS, ("float64", "float64"))["descriptor"]
    assert "lmax" not in first
    assert backbone(first).max_degree == backbone({**first, "lmax": None}).max_degree == 1
    second = model_params(ModelConfig(backbone=DPA1Config(max_degree=2)), ELEMENTS, ("float64", "float64"))["descriptor"]
    assert second["lmax"] == 2


def test_every_tensor_of_the_model_has_a_name_in_deepmd_kit():
    for options in (
        {},
        {"embedding_input": "strip", "timestep": True, "neurons": (5, 10, 12), "axis": 4, "embedding_bias": True},
        {"max_degree": 2},
    ):
        config = DPA1Config(**options)
        with torch.device("meta"):
            state = DPA1(config, ELEMENTS).state_dict()
        named = set(DPA1_TRANSLATOR.names(config, ELEMENTS)) | {"environment.mean", "environment.std"}
        assert named == set(state)
