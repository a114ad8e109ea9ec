"""Energies per element refitted: exact where the data determine them, near the old ones where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from lamella.train.adapt.refit import refit

ELEMENTS = ("H", "C", "O", "S")
RANDOM = np.random.default_rng(0)


def test_shifts_of_every_element_are_found_where_compositions_vary():
    counts = RANDOM.integers(1, 9, size=(30, 4)).astype(float)
    shift = np.array([-3.0, 250.0, 1e4, -0.25])
    found = refit(counts, counts @ shift, ELEMENTS)
    assert found.shift == pytest.approx(shift, rel=1e-9)
    assert (found.rank, found.occurring, found.open, found.loose) == (4, 4, (), ())
    assert "rank all 4," in found.sentence


def test_errors_per_atom_are_what_is_minimised():
    counts = np.array([[1.0, 0, 0, 0], [10.0, 0, 0, 0]])
    found = refit(counts, np.array([1.0, 0.0]), ELEMENTS)
    assert found.shift[0] == pytest.approx(0.5)  # means of 1 and 0 eV/atom, whatever the sizes


def test_one_composition_is_met_with_the_smallest_change():
    counts = np.tile([8.0, 0.0, 4.0, 0.0], (7, 1))
    found = refit(counts, np.full(7, -40.0), ELEMENTS)
    assert counts[0] @ found.shift == pytest.approx(-40.0)
    assert found.shift == pytest.approx(-40.0 * counts[0] / (counts[0] @ counts[0]))
    assert (found.rank, found.occurring) == (1, 2)
    assert found.open == ("H and O always occur in the ratio 2:1, so only the sum over one such unit is known",)
    assert "under-determined" in found.sentence
    assert "rank 1 of 2, condition 1" in found.sentence
    assert "other compositions keep the differences that the model has" in found.sentence


def test_an_element_that_does_not_occur_keeps_its_energy():
    counts = RANDOM.integers(1, 9, size=(30, 4)).astype(float)
    counts[:, 3] = 0.0
    found = refit(counts, counts @ np.array([1.0, 2.0, 3.0, 0.0]), ELEMENTS)
    assert found.shift[3] == 0.0
    assert (found.rank, found.occurring, found.open) == (3, 3, ())


def test_elements_that_noise_decides_are_named():
    counts = np.tile([8.0, 0.0, 4.0, 0.0], (20, 1))
    counts[0, 0] += 1.0  # one ion among water
    found = refit(counts, RANDOM.normal(0.0, 2.0, 20), ELEMENTS)
    assert found.rank == 2
    assert found.loose == ("H", "O")
    assert found.condition > 50
    assert "poorly determined for H, O" in found.sentence


def test_frames_without_energies_leave_everything_as_it_is():
    found = refit(np.zeros((0, 4)), np.zeros(0), ELEMENTS)
    assert not found.shift.any()
    assert found.sentence == "unchanged: no training frame carries an energy"
