"""Low-rank updates and added rows: nothing at first, ordinary tensors when saved."""

from __future__ import annotations

import pytest
import torch

from contract.models import build
from lamella import datasets
from lamella.data.convert import frame_from_atoms
from lamella.models.potential import Potential
from lamella.nn.low_rank import AddedRows, LowRank, is_adapted, parametrized, save_merged

ELEMENTS = ("H", "C", "N", "O")


def graph(potential: Potential):
    return potential.graph([frame_from_atoms(atoms) for atoms in datasets.load("molecules_gfn2")[::60]])


def adapted(dtype: torch.dtype = torch.float64) -> Potential:
    potential = build(elements=ELEMENTS).cast(dtype)
    torch.manual_seed(1)
    for layer in potential.backbone.layers:
        for name in ("node_self", "node_edge", "edge_self", "angle_self", "node_sym"):
            dense = getattr(layer, name)
            parametrized(dense, "weight", LowRank(dense.weight, 2, 3.0))
    parametrized(potential.backbone.embedding, "weight", AddedRows(potential.backbone.embedding.weight, 3))
    save_merged(potential)
    return potential


def stir(potential: Potential) -> None:
    with torch.no_grad():
        for name, parameter in potential.named_parameters():
            if name.endswith((".b", ".offset")):
                parameter.normal_(0.0, 0.3)


def test_untrained_updates_change_no_bit():
    plain, changed = build(elements=ELEMENTS), adapted()
    for a, b in zip(plain(graph(plain)), changed(graph(changed)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_saved_is_an_ordinary_model_that_predicts_the_same_bits(dtype):
    changed = adapted(dtype)
    stir(changed)
    plain = build(elements=ELEMENTS).cast(dtype)
    before = plain(graph(plain))
    assert not torch.equal(before.forces, changed(graph(changed)).forces)
    state = changed.state_dict()
    assert state.keys() == plain.state_dict().keys()
    plain.load_state_dict(state)
    for a, b in zip(plain(graph(plain)), changed(graph(changed)), strict=True):
        assert torch.equal(a, b)
    assert is_adapted(changed)
    assert not is_adapted(plain)


def test_training_changes_the_updates_alone():
    changed = adapted()
    frozen = {name: value.clone() for name, value in changed.named_parameters() if name.endswith("original")}
    assert len(frozen) == 11
    optimizer = torch.optim.Adam([p for p in changed.parameters() if p.requires_grad], lr=1e-2)
    changed(graph(changed), create_graph=True).forces.square().sum().backward()
    optimizer.step()
    named = dict(changed.named_parameters())
    assert all(torch.equal(named[name], value) for name, value in frozen.items())
    table = changed.backbone.embedding.weight
    assert torch.equal(table[:3], frozen["backbone.embedding.parametrizations.weight.original"][:3])
    assert not torch.equal(table[3], frozen["backbone.embedding.parametrizations.weight.original"][3])


def test_an_update_has_the_rank_it_is_given():
    weight = torch.randn(12, 9, dtype=torch.float64)
    update = LowRank(weight, 3, 6.0)
    with torch.no_grad():
        update.b.normal_()
    difference = update(weight) - weight
    assert int(torch.linalg.matrix_rank(difference, atol=1e-9)) == 3
    assert torch.allclose(difference, 2.0 * update.a @ update.b)
