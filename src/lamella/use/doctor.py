"""What ``lamella doctor`` looks at: interpreter, packages, machine, and whether a small model obeys physics here."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch

import lamella
from lamella.allocator import keep_freed_memory
from lamella.compiled.compiler import cpp_compiler, missing_tools, python_headers
from lamella.errors import LamellaError
from lamella.models.backbone import BackboneConfig
from lamella.models.dpa1 import DPA1Config
from lamella.models.dpa2 import DPA2Config, RepformerConfig
from lamella.models.dpa3 import DPA3Config
from lamella.models.heads import HeadConfig
from lamella.models.potential import ModelConfig, Potential
from lamella.models.se_a import SeAConfig
from lamella.models.words import ARCHITECTURES
from lamella.types import Frame

__all__ = ["Finding", "examine"]

_LEAST_DISK: Final = 1e9
"""Bytes free below which a training run is likely to end on a full disk: a few checkpoints of a 3M-parameter model."""

_LEAST_MEMORY: Final = 2e9
"""Bytes available below which a training step of DPA-3 L6 on 200 atoms may not fit."""

_LEAST_TORCH: Final = (2, 13)
"""What pyproject.toml asks for and the tests ran with."""

_PROBE: Final = 9_000_000
"""float32 elements (36 MB) of the memory probe: the size of a typical edge feature array of DPA-3 L6."""

_FRESH_PAGES: Final = 3.0
"""How many times slower a fresh result than a reused one says that memory goes back to the system after every operation."""

_FORCE_BOUND: Final = 1e-6
"""Relative to the largest force: what float64 differences of step 1e-4 Å can resolve."""


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    Attributes:
        topic: what was looked at.
        value: what was found.
        verdict: ``ok``; ``note`` (works, worth knowing); ``problem`` (something will not work or give wrong numbers).
        advice: what to do, empty where nothing is to be done.
    """

    topic: str
    value: str
    verdict: Literal["ok", "note", "problem"] = "ok"
    advice: str = ""


def examine(folder: Path) -> list[Finding]:
    """Everything worth knowing before asking why lamella does not work or is slow.

    Args:
        folder: where runs would be written: its free space is looked at.
    """
    looks: tuple[Callable[[], list[Finding]], ...] = (
        _python,
        _packages,
        _torch_build,
        _processors,
        _devices,
        _compiler,
        _allocator,
        lambda: [_disk(folder)],
        _memory,
        _self_test,
    )
    return [finding for look in looks for finding in look()]


def _python() -> list[Finding]:
    where = f"{platform.system()} {platform.machine()}, {platform.libc_ver()[0] or 'libc unknown'} {platform.libc_ver()[1]}"
    return [
        Finding("lamella", lamella.__version__),
        Finding("python", f"{platform.python_version()} ({sys.prefix})"),
        Finding("platform", where.strip()),
    ]


def _packages() -> list[Finding]:
    """Installed versions of what lamella depends on, beside the tested ones where this is a checkout of the project."""
    tested = _constraints()
    findings = []
    for requirement in importlib.metadata.requires("lamella") or []:
        if "extra ==" in requirement:
            continue
        name = re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0]
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            findings.append(Finding(name, "not installed", "problem", f"install it: pip install '{requirement}'"))
            continue
        wanted = tested.get(_canonical(name))
        if wanted and version.split("+")[0] != wanted:
            findings.append(
                Finding(name, version, "note", f"the tests ran with {wanted}; `make test` says whether it matters")
            )
        else:
            findings.append(Finding(name, version))
    return findings


def _constraints() -> dict[str, str]:
    """Tested version by canonical package name; empty for an installation without the project's files."""
    path = Path(lamella.__file__).parents[2] / "constraints.txt"
    if not path.is_file():
        return {}
    pins = [line.split("==") for line in path.read_text().splitlines() if "==" in line and not line.startswith("#")]
    return {_canonical(name): version.strip() for name, version in pins}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _torch_build() -> list[Finding]:
    found = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    build = f"{torch.__version__}, CUDA {torch.version.cuda or 'not built in'}"
    if found < _LEAST_TORCH:
        wanted = ".".join(map(str, _LEAST_TORCH))
        return [Finding("torch build", build, "problem", f"lamella needs torch {wanted} or newer; repeat the installation")]
    return [Finding("torch build", build)]


def _processors() -> list[Finding]:
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    threads = torch.get_num_threads()
    value = f"{usable} usable cores, torch uses {threads} threads"
    if threads > usable:
        return [Finding("processors", value, "problem", f"more threads than cores are slow: set OMP_NUM_THREADS={usable}")]
    if threads < usable:
        return [Finding("processors", value, "note", f"set OMP_NUM_THREADS={usable} to use all cores")]
    return [Finding("processors", value)]


def _devices() -> list[Finding]:
    if not torch.cuda.is_available():
        value = "none: models run on the CPU"
        if shutil.which("nvidia-smi"):
            advice = "there is an NVIDIA driver, but torch cannot use it: install a CUDA build of torch"
            return [Finding("GPU", value, "problem", advice)]
        return [Finding("GPU", value)]
    findings = []
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        findings.append(Finding("GPU", f"cuda:{index}: {device.name}, {device.total_memory / 1e9:.0f} GB"))
    return findings


def _compiler() -> list[Finding]:
    """What compiled models need; they are an offer (``lamella.compiled``), so nothing is wrong where it is missing."""
    headers = f"Python headers {'present' if python_headers() else 'absent'}"
    value = f"{cpp_compiler() or 'no C++ compiler'}, {headers}; models run eagerly unless compiled on request"
    missing = missing_tools()
    if missing:
        return [Finding("compiler", value, "note", f"nothing to do unless you want compiled models: {missing}")]
    return [Finding("compiler", value)]


def _allocator() -> list[Finding]:
    """Whether large results are allocated anew from the system, page by page, at every operation."""
    kept = keep_freed_memory()
    named = {
        name: os.environ[name] for name in ("LD_PRELOAD", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES") if name in os.environ
    }
    source = torch.ones(_PROBE)
    target = torch.empty_like(source)
    reused = _best_seconds(lambda: torch.add(source, 1.0, out=target))
    fresh = _best_seconds(lambda: torch.add(source, 1.0))
    set_by = ", ".join(f"{name}={value}" for name, value in named.items()) or "the system's default"
    state = "freed memory is kept" if kept else set_by
    value = f"{state}; 36 MB result {1e3 * fresh:.1f} ms fresh, {1e3 * reused:.1f} ms into memory in hand"
    if fresh > _FRESH_PAGES * reused:
        advice = (
            "freed memory goes back to the system each time, which makes models slower on a CPU; lamella keeps it on Linux "
            "unless MALLOC_..., GLIBC_TUNABLES or LD_PRELOAD are set (docs/log.md)"
        )
        return [Finding("memory allocator", value, "note", advice)]
    return [Finding("memory allocator", value)]


def _best_seconds(operation: Callable[[], object], repeats: int = 5) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        operation()
        best = min(best, time.perf_counter() - start)
    return best


def _disk(folder: Path) -> Finding:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding("free disk", f"unknown ({error.strerror})", "note", f"check that the folder {folder} exists")
    value = f"{free / 1e9:.1f} GB in {folder}"
    if free < _LEAST_DISK:
        return Finding("free disk", value, "problem", "free some space before training")
    return Finding("free disk", value)


def _memory() -> list[Finding]:
    """Memory that can be had without swapping; only Linux says so without further packages."""
    path = Path("/proc/meminfo")
    if not path.is_file():
        return []
    entries = dict(line.split(":", 1) for line in path.read_text().splitlines())
    total, free = (1024.0 * int(entries[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    value = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB available"
    if free < _LEAST_MEMORY:
        return [Finding("memory", value, "problem", "close other programs, or train smaller batches")]
    return [Finding("memory", value)]


def _self_test() -> list[Finding]:
    """A small random model of each architecture in float64 on a water dimer: forces = -dE/dr by central differences."""
    start = time.perf_counter()
    try:
        errors = {ARCHITECTURES[backbone.kind]: _force_error(backbone) for backbone in _small_backbones()}
    except (LamellaError, RuntimeError, ValueError, ImportError) as failure:
        reason = f"failed: {type(failure).__name__}: {failure}"
        return [Finding("self-test", reason, "problem", "repeat the installation (`make clean`, remove .venv, `make test`)")]
    seconds = time.perf_counter() - start
    listed = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
    value = f"forces against differences, relative: {listed} (bound {_FORCE_BOUND:.0e}), {seconds:.1f} s"
    if not all(error <= _FORCE_BOUND for error in errors.values()):
        return [Finding("self-test", value, "problem", "wrong forces: do not use this installation; please report")]
    return [Finding("self-test", value)]


def _small_backbones() -> tuple[BackboneConfig, ...]:
    return (
        SeAConfig(sel={"H": 4, "O": 4}, neurons=(8, 16), axis=4),
        DPA1Config(sel=8, neurons=(8, 16), axis=4, attention_dim=8),
        DPA2Config(repformer=RepformerConfig(layers=2, node_dim=16, pair_dim=8)),
        DPA3Config(layers=2, node_dim=16, edge_dim=8, angle_dim=4, axis=2, activation="silu"),
    )


def _force_error(backbone: BackboneConfig) -> float:
    """Largest difference between forces and central differences of the energy, relative to the largest force."""
    step = 1e-4
    # fork_rng: an examination must not move the random numbers of a program that asks for one
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        potential = Potential(ModelConfig(backbone=backbone, head=HeadConfig(hidden=(16,))), ("H", "O")).cast(torch.float64)
    positions = np.array(
        [[0.0, 0.0, 0.0], [0.76, 0.59, 0.0], [-0.76, 0.59, 0.0], [0.0, -2.9, 0.1], [0.5, -3.2, 0.8], [0.3, -1.98, 0.0]]
    )
    numbers = np.array([8, 1, 1, 8, 1, 1])

    def frame(shifted: np.ndarray) -> Frame:
        return Frame(numbers, shifted, np.zeros((3, 3)), np.zeros(3, dtype=bool), source="self-test")

    forces = potential(potential.graph([frame(positions)])).forces.numpy()
    moves = step * np.eye(positions.size).reshape(-1, *positions.shape)
    shifted = [frame(positions + sign * move) for move in moves for sign in (1.0, -1.0)]
    energies = potential(potential.graph(shifted)).energy.numpy().reshape(-1, 2)
    differences = -(energies[:, 0] - energies[:, 1]) / (2 * step)
    return float(np.abs(forces.reshape(-1) - differences).max() / np.abs(forces).max())
