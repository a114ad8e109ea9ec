"""What a model may read of a frame beside its geometry: parameters, charge and spin, from the ``info`` of ASE's atoms.

Only the exact names count (a word like "charge" occurs in many keys that mean something else), or the keys that the user
names: ``frame_params`` or ``fparam`` (any number of numbers), ``charge``, ``spin``, ``charge_spin`` (both, as deepmd-kit
writes them).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lamella.data.keys import INPUT_KEYS, LabelKeys, ReadReport
from lamella.data.refusal import AmbiguousError, NotFiniteError, WrongShapeError
from lamella.errors import DataError

__all__ = ["CHARGE_SPIN", "frame_inputs", "split_charge_spin"]

CHARGE_SPIN = "charge_spin"
"""deepmd-kit's name for charge and spin side by side."""


def frame_inputs(
    info: Mapping[str, object], keys: LabelKeys | None, source: str, report: ReadReport
) -> dict[str, np.ndarray]:
    """The inputs that a frame carries, by name: frame_params (P,), charge (), spin ().

    Args:
        info: what ASE keeps of the frame.
        keys: which key is which input; ``None`` takes the names above.
        source: names the frame in messages.
        report: counts what was used.

    Raises:
        DataError: a value that is no number, of the wrong shape, not finite, or two that differ; naming frame and key.
    """
    found: dict[str, np.ndarray] = {}
    origin: dict[str, str] = {}
    for key, name, value in _given(info, keys or LabelKeys(), source, report):
        if name in found and not np.array_equal(found[name], value):
            raise AmbiguousError(
                f"{source}: {origin[name]!r} and {key!r} both give the {name} and they differ; remove one of them, or name "
                f"the one that is meant (keys.{name})."
            )
        if name not in found:
            found[name], origin[name] = value, key
            report.used[name, key] += 1
    return found


def split_charge_spin(pair: np.ndarray) -> dict[str, np.ndarray]:
    """deepmd-kit's ``charge_spin`` (2,) as charge () and spin ()."""
    return {"charge": pair[0].reshape(()), "spin": pair[1].reshape(())}


def _given(
    info: Mapping[str, object], keys: LabelKeys, source: str, report: ReadReport
) -> list[tuple[str, str, np.ndarray]]:
    """Key, name and value of every input in ``info``."""
    given: list[tuple[str, str, np.ndarray]] = []
    for name, spellings in INPUT_KEYS.items():
        named = keys.input_key(name)
        if named is not None and named not in info:
            report.notes[f"no key {named!r} for {name}"] += 1
        for key in spellings if named is None else (named,):
            if info.get(key) is None:
                continue
            if key == CHARGE_SPIN:
                given.append((key, name, split_charge_spin(_numbers(info[key], key, key, source))[name]))
            else:
                given.append((key, name, _numbers(info[key], key, name, source)))
    return given


def _numbers(value: object, key: str, name: str, source: str) -> np.ndarray:
    """A value as float64 of the shape its name promises: (P,), () or, of both charge and spin, (2,)."""
    rename = f"correct it, or give the key another name if it is no {name}"
    try:
        if np.asarray(value).dtype.kind not in "iuf":
            raise TypeError
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{source}: {key!r} (read as {name}) is not a number but {str(value)[:40]!r}; {rename}.") from None
    wanted = {"frame_params": array.size > 0 and array.ndim <= 1, CHARGE_SPIN: array.shape == (2,)}
    if not wanted.get(name, array.size == 1):
        expected = {"frame_params": "a list of numbers", CHARGE_SPIN: "two numbers"}.get(name, "one number")
        raise WrongShapeError(f"{source}: {key!r} (read as {name}) has shape {array.shape}, not {expected}; {rename}.")
    if not np.isfinite(array).all():
        raise NotFiniteError(f"{source}: {key!r} (read as {name}) contains NaN or infinity; remove the key or the frame.")
    return array if name == CHARGE_SPIN else array.reshape(-1) if name == "frame_params" else array.reshape(())
