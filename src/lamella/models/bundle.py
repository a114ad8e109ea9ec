"""A model on disk: ``model.safetensors`` (every tensor) and ``model.json`` (everything else), in a folder.

Nothing is executed when a model is read, and nothing is allocated before the files are known to be complete and to describe
each other: the weights' header and the shapes the configuration implies are compared first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as bytes_from_tensors
from torch import Tensor

from lamella.errors import CheckpointError, LamellaError, shown
from lamella.fields import FIELDS
from lamella.models.potential import ModelConfig, Potential
from lamella.nn.environment import Environment

__all__ = ["DESCRIPTION", "FORMAT", "UNITS", "UPGRADES", "WEIGHTS", "build_potential", "load_model", "save_model"]

FORMAT: Final = 2
"""Version of the layout written by this release."""

WEIGHTS: Final = "model.safetensors"
DESCRIPTION: Final = "model.json"

UNITS: Final[dict[str, str]] = {"length": "Å", **{name: field.unit for name, field in FIELDS.items()}}
"""Units of what the model reads and says; stored with it and compared when it is loaded."""

Upgrade = Callable[[dict[str, Any], dict[str, Tensor]], tuple[dict[str, Any], dict[str, Tensor]]]


def _from_1(description: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Format 1 knew DPA-3 alone: one network a head, a scale but no mean of the environment, no angle map without angles."""
    renamed = {
        name.replace(".net.", ".nets.0.") if name.startswith("heads.") else name: value for name, value in tensors.items()
    }
    std = renamed.pop("backbone.env_std", None)
    if std is not None:  # without it the file is damaged, which the comparison of shapes will say
        renamed["backbone.environment.std"] = std
        renamed["backbone.environment.mean"] = std.new_zeros(len(std))
    edge = renamed.get("backbone.edge_init.weight")
    if edge is not None and "backbone.angle_init.weight" not in renamed:
        renamed["backbone.angle_init.weight"] = edge.new_zeros(1, description["config"]["backbone"]["angle_dim"])
    for head in range(sum(name.endswith("out.weight") and name.startswith("heads.") for name in renamed)):
        for buffer in ("frame_mean", "frame_inv_std"):
            renamed[f"heads.{head}.{buffer}"] = torch.zeros(0, dtype=None if edge is None else edge.dtype)
    return description, renamed


UPGRADES: dict[int, Upgrade] = {1: _from_1}
"""By format version v: (description, tensors) as written by v -> the same as v + 1 would have written them."""

_AGAIN = "copy the folder again from where it was made, or use an earlier step"


class _Description(BaseModel):
    """What ``model.json`` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: int
    config: ModelConfig
    elements: tuple[str, ...]
    tasks: tuple[str, ...]
    units: dict[str, str]
    metadata: dict[str, Any]


def save_model(potential: Potential, folder: Path) -> None:
    """Write a model into an existing folder; each file appears complete or not at all.

    Raises:
        CheckpointError: the folder is missing, the disk is full, or ``potential.metadata`` is no JSON.
    """
    description = {
        "format": FORMAT,
        "config": potential.config.model_dump(mode="json"),
        "elements": list(potential.elements),
        "tasks": list(potential.tasks),
        "units": UNITS,
        "metadata": potential.metadata,
    }
    try:
        text = json.dumps(description, indent=1, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder}: the model's metadata is no JSON ({error}); use plain values in it.") from None
    tensors = {name: value.detach().cpu().contiguous() for name, value in potential.state_dict().items()}
    _write(folder / WEIGHTS, bytes_from_tensors(tensors))
    _write(folder / DESCRIPTION, text.encode())


def load_model(folder: Path) -> Potential:
    """Read what :func:`save_model` wrote: the same bits, dtype and metadata, on the CPU.

    Raises:
        CheckpointError: a file is missing, cut short, damaged, of a newer format, or does not fit the other.
    """
    description = _read_description(folder / DESCRIPTION)
    version = description["format"]
    tensors = _read_weights(folder / WEIGHTS)
    for step in range(version, FORMAT):
        description, tensors = UPGRADES[step](description, tensors)
    try:
        known = _Description.model_validate(description)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        said = [".".join(str(part) for part in first["loc"]), first["msg"].removeprefix("Value error, ")]
        why = ": ".join(shown(part, 300) for part in said if part)
        raise CheckpointError(f"{folder / DESCRIPTION}: {why}; {_AGAIN}.") from None
    if known.units != UNITS:
        raise CheckpointError(f"{folder / DESCRIPTION}: units {known.units} are not {UNITS}; convert the model first.")
    return build_potential(known.config, known.elements, known.tasks, known.metadata, tensors, str(folder))


def build_potential(
    config: ModelConfig,
    elements: Sequence[str],
    tasks: Sequence[str],
    metadata: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    source: str,
) -> Potential:
    """A potential made of given tensors, by :class:`Potential`'s own names, after checking every one of them.

    Args:
        config: hyper-parameters.
        elements: chemical symbols.
        tasks: names.
        metadata: what else is known.
        tensors: weights and buffers; their dtype becomes the model's.
        source: names the file or folder in messages.

    Raises:
        CheckpointError: a tensor is missing, unknown, of the wrong shape or dtype, or not finite; a scale is not above 0.
    """
    try:
        with torch.device("meta"):  # shapes only: a wild configuration must not allocate
            potential = Potential(config, elements, tasks, metadata)
    except LamellaError as error:
        raise CheckpointError(f"{source}: {error}") from None
    except (RuntimeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{source}: no model can be built from its configuration ({error}); {_AGAIN}.") from None
    weight = next(
        (tensors[name] for name, _ in potential.backbone.named_parameters(prefix="backbone") if name in tensors), None
    )
    if weight is not None and weight.dtype.is_floating_point:
        potential.cast(weight.dtype)
    _check_tensors(potential.state_dict(), tensors, source)
    _check_scales(potential, tensors, source)
    potential.load_state_dict(dict(tensors), assign=True)
    return potential


def _check_tensors(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> None:
    missing, unknown = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or unknown:
        parts = [f"{word} {_some(names)}" for word, names in (("misses", missing), ("has unknown", unknown)) if names]
        raise CheckpointError(f"{source}: the model {' and '.join(parts)}; its files do not belong together: {_AGAIN}.")
    for name, value in found.items():
        want = expected[name]
        if value.shape != want.shape:
            raise CheckpointError(
                f"{source}: tensor {name} has shape {tuple(value.shape)}, its configuration says {tuple(want.shape)}; "
                f"its files do not belong together: {_AGAIN}."
            )
        if value.dtype != want.dtype:
            raise CheckpointError(f"{source}: tensor {name} is {value.dtype}, not {want.dtype} like the rest; {_AGAIN}.")
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{source}: tensor {name} contains NaN or infinity; use a step before training diverged.")


def _check_scales(potential: Potential, tensors: Mapping[str, Tensor], source: str) -> None:
    """Rows of an environment matrix are divided by its scales."""
    for module, part in potential.named_modules():
        if isinstance(part, Environment) and (tensors[f"{module}.std"] <= 0).any():
            raise CheckpointError(f"{source}: tensor {module}.std holds a scale that is not above 0; {_AGAIN}.")


def _some(names: Sequence[str]) -> str:
    first = ", ".join(shown(name) for name in names[:3])
    return first if len(names) <= 3 else f"{first} and {len(names) - 3} more"


def _read_description(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read(path).decode())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: no complete JSON ({error}); {_AGAIN}.") from None
    version = content.get("format") if isinstance(content, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise CheckpointError(f"{path}: no description of a lamella model (its key 'format' must be 1 or more); {_AGAIN}.")
    if version > FORMAT:
        raise CheckpointError(
            f"{path}: written by a newer lamella (format {version}; this one reads up to {FORMAT}). "
            "Upgrade: pip install --upgrade lamella."
        )
    return content


def _read_weights(path: Path) -> dict[str, Tensor]:
    content = _read(path)  # as large as the file is, whatever its header claims
    try:
        # cloned: the parser's tensors are views of one buffer, not all of them aligned
        return {name: value.clone() for name, value in tensors_from_bytes(content).items()}
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path}: cut short or damaged ({error}); {_AGAIN}.") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; a model folder holds {WEIGHTS} and {DESCRIPTION}: {_AGAIN}.") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions.") from None


def _write(path: Path, content: bytes) -> None:
    """Write beside the target, flush to the disk, then rename: a reader sees the old file or the whole new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path}: cannot be written ({error.strerror}); free space or choose another folder. Earlier saves are intact."
        ) from None
