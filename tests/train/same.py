"""What two runs have in common to the last bit, or to round-off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lamella.train.log import read_log
from lamella.train.state import pointed

__all__ = ["assert_same", "assert_same_curve", "everything"]


def everything(run: Path) -> tuple[list[dict[str, Any]], bytes, dict[str, Any]]:
    """What must not depend on how often a run was interrupted: its log without times, its model, its trainer's state."""
    last = pointed(run, "last")
    assert last is not None
    log = [{key: value for key, value in record.items() if key != "seconds"} for record in read_log(run)]
    state = torch.load(last / "trainer.pt", weights_only=True)
    state["progress"].pop("seconds")
    return log, (last / "model.safetensors").read_bytes(), state


def assert_same(a: Any, b: Any) -> None:
    """Equal to the last bit, also inside containers of tensors."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def assert_same_curve(run: Path, other: Path) -> None:
    """To round-off: every record of the log but its times."""
    for ours, theirs in zip(read_log(run), read_log(other), strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - {"seconds"}:
            number = isinstance(ours[key], float)
            assert ours[key] == (pytest.approx(theirs[key], rel=1e-9, abs=1e-12) if number else theirs[key]), (key, ours)
