"""What a worker sends arrives as it was, in one block."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from lamella.data.parcel import packed, unpacked


class Pair(NamedTuple):
    tensor: torch.Tensor
    words: str


def test_a_value_arrives_as_it_was_and_can_be_written_to():
    tensor = torch.arange(6.0, dtype=torch.float64).reshape(2, 3)
    value = {
        "pair": Pair(tensor, "energy"),
        "again": tensor,
        "kinds": [torch.tensor([True, False]), torch.tensor(3), torch.tensor(0.5), np.arange(5)],
        "empty": torch.zeros(0, 3, dtype=torch.int64),
        "turned": tensor.T,
        "none": None,
    }
    parcel = packed(value)
    found = unpacked(parcel)
    assert found["pair"].words == "energy"
    assert found["pair"].tensor is found["again"]
    assert found["none"] is None
    sent = [found["again"], *found["kinds"][:3], found["empty"], found["turned"]]
    given = [tensor, *value["kinds"][:3], value["empty"], tensor.T]
    for ours, theirs in zip(sent, given, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        assert torch.equal(ours, theirs)
    assert found["kinds"][3].tolist() == [0, 1, 2, 3, 4]
    found["again"][0, 0] = 7.0
    assert tensor[0, 0] == 0.0
    place = parcel.block.data_ptr()
    assert place <= found["again"].data_ptr() < place + len(parcel.block)
    assert (found["again"].data_ptr() - place) % 64 == 0


def test_a_value_without_tensors_has_an_empty_block():
    parcel = packed(("error", 3))
    assert len(parcel.block) == 0
    assert unpacked(parcel) == ("error", 3)
