"""The processes that train together, as torchrun starts them (gloo on CPUs, nccl on GPUs), or the one that trains alone."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from lamella.errors import RecipeError, TrainingError
from lamella.formats.load import as_device
from lamella.train.parallel.watch import Watch

__all__ = ["ALONE", "Ranks", "joined", "rank_of_this_process"]

_PATIENCE: Final = timedelta(minutes=30)
"""For a process that is alive but late: one that ends is noticed at once (:mod:`lamella.train.parallel.watch`)."""

T = TypeVar("T")


class Ranks:
    """Who trains together, and what they tell each other; every method must be called by all of them in the same order.

    Attributes:
        rank: number of this process, from 0.
        world: how many there are.
        device: where this process computes.
    """

    def __init__(self, rank: int = 0, world: int = 1, device: torch.device | None = None) -> None:
        self.rank, self.world = rank, world
        self.device = device or torch.device("cpu")
        self.watch = Watch(rank, world, _from_first) if world > 1 else None

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and talks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place: the same bits in each."""
        return self._together(values, lambda: dist.all_reduce(values))

    def largest(self, value: int) -> int:
        """The largest of everybody's."""
        if self.world == 1:
            return value
        values = torch.tensor([value])
        return int(self._together(values, lambda: dist.all_reduce(values, dist.ReduceOp.MAX)).item())

    def gathered(self, words: str) -> list[str]:
        """Everybody's words, by rank."""
        said: list[Any] = [words] * self.world
        return self._together(said, lambda: dist.all_gather_object(said, words))

    def as_the_first(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite tensors by those of the first process."""
        for value in tensors:
            self._together(value, partial(dist.broadcast, value.detach(), 0))

    def sum_gradients(self, parameters: Sequence[Tensor], extras: Sequence[float]) -> list[float]:
        """Replace gradients by their sums over all processes, in one exchange, and sum some numbers along with them.

        A parameter that has no gradient in any process keeps none, as in one process: optimisers leave it alone.

        Args:
            parameters: of one dtype.
            extras: this process's numbers.

        Returns:
            Their sums, in the parameters' precision.
        """
        if self.world == 1:
            return list(extras)
        known = [float(p.grad is not None) for p in parameters]
        tail = torch.tensor([*known, *extras], dtype=parameters[0].dtype, device=parameters[0].device)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = self.sum(torch.cat([*(grad.reshape(-1) for grad in grads), tail]))
        *parts, tail = flat.split([*(p.numel() for p in parameters), len(tail)])
        summed = tail.tolist()
        for p, part, holders in zip(parameters, parts, summed, strict=False):
            p.grad = part.view_as(p) if holders else None
        return summed[len(parameters) :]

    def advise(self, words: str) -> None:
        """What to say should another process end from now on."""
        if self.watch is not None:
            self.watch.advice = words

    def _together(self, result: T, exchange: Callable[[], object]) -> T:
        if self.watch is None:
            return result
        self.watch.check()
        broken = None
        try:
            exchange()
        except (RuntimeError, ValueError) as error:
            broken = (str(error).splitlines() or [type(error).__name__])[0][:200]
        if broken is not None:  # raised out here: torch's error would keep the work of gloo's threads beyond the interpreter
            raise self.watch.broken(broken)
        return result


ALONE: Final = Ranks()


def rank_of_this_process() -> int:
    """What torchrun says; 0 without it."""
    return int(os.environ.get("RANK", "0"))


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Inside the block all processes that torchrun started train together; without torchrun there is one.

    Args:
        device: ``auto``, or a name of torch's.

    Raises:
        RecipeError: the device is not there, or not one for each process of this machine.
        TrainingError: the others cannot be reached, or one of them ended.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    place = _device(device, world)
    if world == 1:
        yield Ranks(device=place)
        return
    rank = rank_of_this_process()
    begun = not dist.is_initialized()
    if begun:
        _meet(rank, world, place)
    ranks = Ranks(rank, world, place)
    assert ranks.watch is not None
    try:
        with _silent(rank > 0):
            yield ranks
    except BaseException as error:
        ranks.watch.leave(error)
        if begun and place.type == "cpu":  # nccl would wait for whoever is gone
            dist.destroy_process_group()
        raise
    ranks.watch.leave(None)
    if begun:
        dist.destroy_process_group()


def _device(name: str, world: int) -> torch.device:
    """The device of this process: on ``auto``, the GPU of its place on this machine."""
    if name != "auto":
        device = as_device(name)
        if world > 1 and device.type == "cuda" and int(os.environ.get("LOCAL_WORLD_SIZE", world)) > 1:
            raise RecipeError(
                f"device: {name} would be the device of several processes; set it to auto, which gives each one."
            )
        return device
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if world == 1:
        return torch.device("cuda")
    place, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if place >= count:
        raise RecipeError(
            f"device: this machine has {count} GPUs and more processes; start it with torchrun --nproc-per-node={count}, or "
            "set device to cpu."
        )
    torch.cuda.set_device(place)
    return torch.device("cuda", place)


def _meet(rank: int, world: int, device: torch.device) -> None:
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise TrainingError(
            f"rank {rank} of {world}: the processes do not find each other ({reason}); start them with "
            "`torchrun --nproc-per-node=N -m -- lamella train ...`."
        ) from None


def _from_first(values: list[object]) -> list[object]:
    dist.broadcast_object_list(values, 0, device=torch.device("cpu"))
    return values


@contextmanager
def _silent(wanted: bool) -> Iterator[None]:
    """Inside the block nothing is logged or warned of where ``wanted``: the first process says it."""
    if not wanted:
        yield
        return
    logger = logging.getLogger("lamella")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
