"""DeepPot-SE between deepmd-kit's options and tensors (se_e2_a) and ours; defaults are those of deepmd-kit 3.2.0."""

from __future__ import annotations

import pytest

from lamella.errors import CheckpointError
from lamella.formats.deepmd.se_a import SE_A_TRANSLATOR
from lamella.formats.deepmd.translator import Place
from lamella.models.se_a import SeA, SeAConfig

ELEMENTS = ("O", "H", "C")
PLACE = Place("m.pt: model.descriptor", ELEMENTS)

RICH = SeAConfig(
    cutoff=4.5,
    switch_start=2.0,
    sel={"O": 7, "H": 5, "C": 3},
    neurons=(3, 6, 6),
    axis=5,
    one_sided=False,
    timestep=True,
    activation="silut:2.0",
    zero_mean=True,
    protection=0.1,
    excluded_pairs=(("O", "H"), ("C", "C")),
)


def test_every_option_survives_the_way_there_and_back():
    defaults = SeAConfig(sel=dict.fromkeys(ELEMENTS, 1))
    changed = {name for name in SeAConfig.model_fields if getattr(RICH, name) != getattr(defaults, name)}
    assert changed == set(SeAConfig.model_fields) - {"kind"}
    theirs = SE_A_TRANSLATOR.write(RICH, ELEMENTS)
    assert theirs["sel"] == [7, 5, 3]
    assert theirs["exclude_types"] == [[0, 1], [2, 2]]
    assert SE_A_TRANSLATOR.read(dict(theirs), PLACE) == RICH


def test_options_left_out_mean_other_things_in_a_checkpoint_and_in_an_input_file():
    needed = {"type": "se_e2_a", "rcut": 6.0, "rcut_smth": 0.5, "sel": [1, 2, 3]}
    checkpoint = SE_A_TRANSLATOR.read(dict(needed), PLACE)
    assert (checkpoint.neurons, checkpoint.axis, checkpoint.one_sided) == ((25, 50, 100), 16, True)
    given = SE_A_TRANSLATOR.read({"type": "se_a"}, PLACE._replace(json=True))
    assert (given.neurons, given.axis, given.one_sided) == ((10, 20, 40), 4, False)
    assert (given.cutoff, given.switch_start, given.sel) == (6.0, 0.5, "auto")


@pytest.mark.parametrize("sel", [[1, 2], [1, 2, 3, 4], 6, "auto", [1, 2, "3"], None])
def test_sel_that_is_not_one_number_for_each_element_is_refused(sel):
    section = {"type": "se_e2_a", "rcut": 6.0, "rcut_smth": 0.5, "sel": sel}
    with pytest.raises(CheckpointError, match=r"descriptor\.sel.*O H C"):
        SE_A_TRANSLATOR.read(section, PLACE)


def test_unknown_option_is_refused_by_name():
    section = {"type": "se_e2_a", "rcut": 6.0, "rcut_smth": 0.5, "sel": [1, 2, 3], "lmax": 2}
    with pytest.raises(CheckpointError, match="lmax"):
        SE_A_TRANSLATOR.read(section, PLACE)


@pytest.mark.parametrize("one_sided", [True, False])
def test_every_weight_has_a_name_of_theirs(one_sided):
    config = RICH.model_copy(update={"one_sided": one_sided})
    names = SE_A_TRANSLATOR.names(config, ELEMENTS)
    assert set(names) == {name for name, _ in SeA(config, ELEMENTS).named_parameters()}
    assert len(set(names.values())) == len(names)
    assert names["nets.2.layers.1.timestep"] == "sea.filter_layers.networks.2.layers.1.idt"
    assert "nets.2.layers.0.timestep" not in names  # 1 -> 3: no shortcut, so no step of it
    assert len(SE_A_TRANSLATOR.empty(config, ELEMENTS)) == 2 * (3 if one_sided else 9)
    assert SE_A_TRANSLATOR.blocks(config, ELEMENTS)["environment"].slots == 15
