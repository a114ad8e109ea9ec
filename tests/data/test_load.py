"""Batches are the same however many processes make them, and no process outlives its use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch

from lamella.data.load import Choice, Plan, batches, make_batch
from lamella.data.sample import BatchSpec, Sampler
from lamella.data.source import FrameList
from lamella.errors import StructureError
from lamella.geometry.graph import build_graph, collate
from lamella.types import Frame, GraphSpec

SPEC = GraphSpec((1, 8), 4.0, 3.0, angles=True)


def frame(seed: int, labels: tuple[str, ...] = ()) -> Frame:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 12))
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), axis=-1).reshape(-1, 3)[:n] * 2.0
    periodic = bool(seed % 2)
    shapes = {"energy": (), "forces": (n, 3), "virial": (3, 3)}
    return Frame(
        rng.choice([1, 8], n),
        grid + rng.uniform(-0.2, 0.2, (n, 3)),
        6.0 * np.eye(3) * periodic,
        np.full(3, periodic),
        {name: rng.normal(size=shapes[name]) for name in labels},
        f"f#{seed}",
    )


def test_batch_mixes_sizes_and_periodicity_and_marks_who_carries_what():
    frames = [frame(0, ("energy",)), frame(1, ("energy", "forces")), frame(2), frame(3, ("forces", "virial"))]
    batch = make_batch(frames, SPEC)
    expected = collate([build_graph(item, SPEC) for item in frames])
    assert torch.equal(batch.graph.vec, expected.vec)
    assert batch.graph.n_frames == 4
    assert {name: value.tolist() for name, value in batch.carries.items()} == {
        "energy": [True, True, False, False],
        "forces": [False, True, False, True],
        "virial": [False, False, False, True],
    }
    first = np.cumsum([0] + [len(item) for item in frames])
    assert batch.labels["forces"].shape == (first[-1], 3)
    assert batch.labels["virial"].shape == (4, 3, 3)
    np.testing.assert_array_equal(batch.labels["forces"][first[3] :], frames[3].labels["forces"])
    assert not batch.labels["forces"][: first[1]].any()
    assert batch.labels["energy"].tolist() == [
        float(frames[0].labels["energy"]),
        float(frames[1].labels["energy"]),
        0.0,
        0.0,
    ]
    assert all(value.dtype == torch.float64 for value in batch.labels.values())
    assert batch.sources == ("f#0", "f#1", "f#2", "f#3")


def plan_of(sampler: Sampler) -> Plan:
    return lambda step: [Choice("a", sampler.batch(step))]


def test_a_step_may_look_at_several_tasks_and_a_task_may_have_no_frame_here():
    frames = {name: FrameList([frame(seed) for seed in seeds]) for name, seeds in (("a", (0, 1)), ("b", (2, 3, 4)))}
    nobody = np.zeros(0, dtype=int)
    chosen = [Choice("b", np.array([2, 0])), Choice("a", nobody), Choice("b", np.array([1]))]
    for workers in (0, 1):
        (shares,) = batches(frames, lambda step: chosen, SPEC, [7], workers)
        assert [(task, batch and batch.sources) for task, batch in shares] == [
            ("b", ("f#4", "f#2")),
            ("a", None),
            ("b", ("f#3",)),
        ]


@pytest.mark.parametrize("spec", [BatchSpec(frames=3), BatchSpec(edges=400)])
def test_same_batches_in_the_same_order_for_any_number_of_workers(spec):
    frames = FrameList([frame(seed, ("energy", "forces")) for seed in range(11)])
    costs = np.array([[build_graph(frames[i], SPEC).n_edges, 0] for i in range(11)])
    made = {}
    for workers in (0, 1, 3):
        sampler = Sampler(costs, spec, seed=5)
        made[workers] = [share.batch for (share,) in batches({"a": frames}, plan_of(sampler), SPEC, range(2, 13), workers)]
    assert len(made[0]) == 11
    for workers in (1, 3):
        for a, b in zip(made[0], made[workers], strict=True):
            assert a.sources == b.sources
            assert torch.equal(a.graph.vec, b.graph.vec)
            assert torch.equal(a.graph.angle_k.order, b.graph.angle_k.order)
            assert torch.equal(a.labels["forces"], b.labels["forces"])


def test_worker_processes_leave_the_random_state_alone():
    """A run with workers that is stopped and resumed makes more loaders than one that is not."""
    frames = FrameList([frame(seed) for seed in range(4)])
    before = torch.get_rng_state()
    assert len(list(batches({"a": frames}, plan_of(Sampler(4, BatchSpec(frames=1), 0)), SPEC, range(2), 1))) == 2
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_unknown_element_surfaces_with_the_name_of_the_frame(workers):
    frames = FrameList([frame(seed) for seed in range(4)])
    plan = plan_of(Sampler(4, BatchSpec(frames=1), 0))
    with pytest.raises(StructureError, match=r"^f#\d: the model does not know the element O"):
        list(batches({"a": frames}, plan, GraphSpec((1,), 4.0, 3.0, angles=True), range(4), workers))


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]


def test_workers_end_when_the_loop_is_left_early():
    before = len(children())
    frames = FrameList([frame(seed) for seed in range(4)])
    stream = batches({"a": frames}, plan_of(Sampler(4, BatchSpec(frames=1), 0)), SPEC, range(10**6), 2)
    next(stream)
    assert len(children()) == before + 2
    stream.close()
    assert len(children()) == before


PROGRAM = """
import numpy as np, sys
from lamella.data.load import Choice, batches
from lamella.data.sample import BatchSpec, Sampler
from lamella.data.source import FrameList
from lamella.types import Frame, GraphSpec
f = FrameList([Frame(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 1.0]]), np.zeros((3, 3)), np.zeros(3, bool))] * 4)
sampler = Sampler(4, BatchSpec(frames=1), 0)
plan = lambda step: [Choice("a", sampler.batch(step))]
for step, shares in enumerate(batches({"a": f}, plan, GraphSpec((1,), 4.0, 3.0), range(10**9), 2)):
    if step == 3:
        print("running", flush=True)
"""


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_survives_ctrl_c_or_a_killed_parent(stop):
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    os.kill(process.pid, stop)
    process.communicate(timeout=30)
    assert process.returncode != 0
    deadline = time.monotonic() + 20
    while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.1)
