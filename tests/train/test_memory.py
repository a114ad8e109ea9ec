"""Training from sets that are larger than memory: frames are held no longer than a batch needs them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lamella.train.task_data as task_data
from lamella.train.fit import fit
from lamella.train.log import read_log
from lamella.train.recipe import Recipe
from lamella.types import Frame

MEMORY = 150_000
"""Bytes that this machine is said to have."""

FRAMES = 1500
BATCH = 4


class Simulated:
    """A set that nobody could hold: frames are made when asked for, and the bytes of those still held are counted."""

    content_hash = "simulated"

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.bytes = self.loaded = self.held = self.most = 0

    def __len__(self) -> int:
        return FRAMES

    def __getitem__(self, index: int) -> Frame:
        if not 0 <= index < FRAMES:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, index])
        ring = np.array([[2.0, 0, 0], [0, 2.0, 0], [-2.0, 0, 0], [0, -2.0, 0]]) / 1.4
        positions = ring + rng.normal(0.0, 0.02, ring.shape)
        labels = {"energy": np.array(rng.normal() - 4.0), "forces": rng.normal(size=ring.shape)}
        frame = Frame(np.array([1, 6, 1, 6]), positions, np.zeros((3, 3)), np.zeros(3, dtype=bool), labels, f"s#{index}")
        arrays = (frame.numbers, frame.positions, frame.cell, frame.pbc, *labels.values())
        size = sum(array.nbytes for array in arrays)
        self.loaded += 1
        self.held += size
        self.most = max(self.most, self.held)
        self.bytes = FRAMES * size
        weakref.finalize(frame, self._let_go, size)
        return frame

    def _let_go(self, size: int) -> None:
        self.held -= size

    def digest(self, index: int) -> bytes:
        return index.to_bytes(32, "little")


@pytest.mark.parametrize("batch", [{"frames": BATCH}, {"edges": 12 * BATCH}])
def test_sets_ten_times_larger_than_memory_are_trained_in_a_part_of_it(
    tmp_path: Path,
    make_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    batch: dict[str, int],
) -> None:
    sets = {f"set{k}": Simulated(k) for k in range(4)}
    monkeypatch.setattr(task_data, "open_data", lambda paths, keys: sets[Path(paths[0]).name])
    tasks = {name: {"train": name, "valid_fraction": 0.002} for name in sets}
    training = {"steps": 6, "valid_every": 3, "tasks_per_step": 2}
    run = fit(make_recipe(tasks=tasks, batch=batch, training=training), tmp_path / "run")
    assert {record["task"] for record in read_log(run) if record["event"] == "valid"} == set(sets)
    gc.collect()
    for each in sets.values():
        assert each.held == 0
        assert each.loaded <= 8 * FRAMES  # a few passes: survey, baseline, statistics, costs
    assert sum(each.bytes for each in sets.values()) >= 10 * MEMORY
    assert sum(each.most for each in sets.values()) < MEMORY / 15
