"""Type embedding: one row per element, and the identity where the widths happen to agree."""

from __future__ import annotations

import pytest
import torch

from lamella.nn.electrons import electron_vectors
from lamella.nn.embedding import TypeEmbedding

SYMBOLS = ("O", "H", "Cu", "Zr")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("n_species", "width", "copies"), [(3, 3, 1), (3, 6, 2), (3, 5, 0), (3, 9, 0), (3, 2, 0), (1, 1, 1), (1, 2, 2)]
)
def test_row_is_weight_plus_bias_plus_identity_where_the_widths_agree(bias, n_species, width, copies):
    embedding = TypeEmbedding(SYMBOLS[:n_species], width, bias).double()
    species = torch.tensor([0, n_species - 1, 0])
    got = embedding(species)
    for row, s in zip(got, species.tolist(), strict=True):
        want = embedding.weight[s] + (embedding.bias if bias else 0)
        one_hot = torch.zeros(n_species, dtype=torch.float64)
        one_hot[s] = 1.0
        if copies:
            want = want + one_hot.repeat(copies)
        assert torch.allclose(row, want, rtol=0, atol=1e-15)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("width", "copies"), [(6, 0), (4, 0), (118, 1), (236, 2), (354, 0)])
def test_electronic_configurations_take_the_place_of_one_hot_rows(width, copies, bias):
    embedding = TypeEmbedding(SYMBOLS, width, bias, electron=True).double()
    assert embedding.weight.shape == (118, width)
    vectors = electron_vectors(SYMBOLS)
    want = vectors @ embedding.weight + (embedding.bias if bias else 0)
    if copies:
        want = want + vectors.repeat(1, copies)
    assert torch.allclose(embedding(torch.arange(4)), want, rtol=0, atol=1e-14)


def test_electronic_configurations_are_not_saved():
    assert set(TypeEmbedding(SYMBOLS, 5, electron=True).state_dict()) == {"weight"}


def test_no_atoms_give_no_rows():
    assert TypeEmbedding(SYMBOLS, 7)(torch.zeros(0, dtype=torch.int64)).shape == (0, 7)


@pytest.mark.parametrize("electron", [False, True])
def test_embedding_keeps_the_dtype_of_its_weights(electron):
    assert TypeEmbedding(SYMBOLS, 4, electron=electron).double()(torch.tensor([1])).dtype == torch.float64
    assert TypeEmbedding(SYMBOLS, 4, electron=electron)(torch.tensor([1])).dtype == torch.float32


def test_only_the_rows_of_atoms_present_receive_a_gradient():
    embedding = TypeEmbedding(SYMBOLS, 5)
    embedding(torch.tensor([1, 1, 3])).sum().backward()
    assert embedding.weight.grad.sum(dim=1).tolist() == [0.0, 10.0, 0.0, 5.0]
