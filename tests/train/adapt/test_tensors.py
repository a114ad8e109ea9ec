"""What the plan says of tensors: found by comparing them."""

from __future__ import annotations

import pytest

from lamella.models.extend import with_elements
from lamella.models.potential import ModelConfig, Potential
from lamella.train.adapt.tensors import fates
from train.small import MODEL


@pytest.mark.parametrize("width", [4, 8, 9])
def test_a_table_of_elements_is_loaded_also_where_a_new_element_breaks_its_shortcut(width: int) -> None:
    backbone = MODEL["backbone"] | {"node_dim": width}
    source = Potential(ModelConfig.model_validate(MODEL | {"backbone": backbone}), ["H", "C", "N", "O"], ("a",))
    found = fates(with_elements(source.double(), {"S": "O"}), source, "float64")
    assert not found.new and not found.dropped
    assert found.widened == {"backbone.embedding.weight": width}
    assert found.numbers == sum(parameter.numel() for parameter in source.parameters())
