"""Electronic configurations: built by rule, and the very table of deepmd-kit."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from ase.data import chemical_symbols

from lamella.nn.electrons import ELECTRON_WIDTH, electron_vectors

ELEMENTS = chemical_symbols[1:119]


def signs(*elements):
    return torch.sign(electron_vectors(elements)).to(torch.int64).tolist()


def test_every_element_has_as_many_filled_spin_orbitals_as_electrons():
    filled = (electron_vectors(ELEMENTS) > 0).sum(dim=1)
    assert filled.tolist() == list(range(1, 119))


def test_vectors_have_length_one_and_two_entries_only():
    vectors = electron_vectors(ELEMENTS)
    assert vectors.shape == (118, ELECTRON_WIDTH) == (118, 118)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(118, dtype=torch.float64), rtol=0, atol=1e-14)
    assert len(vectors.abs().unique()) == 1


def test_no_two_elements_share_a_vector():
    assert len({tuple(row) for row in signs(*ELEMENTS)}) == 118


def test_carbon_pairs_its_s_electrons_and_leaves_two_p_electrons_single():
    (carbon,) = signs("C")
    assert carbon[:10] == [1, 1, 1, 1, -1, 1, -1, 1, -1, -1]  # 1s² 2s² 2p²
    assert carbon[10:] == [-1] * 108


def test_oxygen_pairs_one_of_its_p_orbitals():
    assert signs("O")[0][4:10] == [1, 1, -1, 1, -1, 1]


def test_chromium_takes_an_electron_of_4s_for_3d():
    (chromium,) = signs("Cr")
    assert chromium[18:28] == [-1, 1] * 5  # 3d⁵
    assert chromium[28:30] == [-1, 1]  # 4s¹


def test_table_is_that_of_deepmd_kit():
    """Deepmd-kit 3.2.0: sha256(packbits(table > 0)) of ``deepmd.utils.econf_embd``, H to Og."""
    bits = np.packbits((electron_vectors(ELEMENTS) > 0).numpy())
    assert hashlib.sha256(bits.tobytes()).hexdigest() == "8a1667c7317bfb7813c7f27de3e61cbfc0e12fac6277271ab26f897e7d14fa6a"


def test_vectors_are_numbers_also_where_models_are_built_without_memory():
    with torch.device("meta"):
        assert electron_vectors(["H"]).device.type == "cpu"
