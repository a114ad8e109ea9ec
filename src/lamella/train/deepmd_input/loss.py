"""``loss``: the energy loss ``ener``."""

from __future__ import annotations

from typing import Any, Final

from lamella.errors import RecipeError
from lamella.train.deepmd_input.section import Section, refusal
from lamella.train.loss import LossConfig, LossKind

__all__ = ["read_loss", "write_loss"]

_TERMS: Final = {"energy": ("e", 0.02, 1.0), "forces": ("f", 1000.0, 1.0), "virial": ("v", 0.0, 0.0)}
"""Our label -> their letter, and the prefactors where they are absent."""

_OTHER_TERMS: Final = {"ae": "atomic energies", "pf": "weights of atoms (atom_pref)", "gf": "generalised forces"}


def read_loss(section: Section) -> dict[str, Any]:
    """Our ``loss``."""
    section.text("type", "ener", ("ener",))
    prefactors = {label: _pair(section, letter, start, limit) for label, (letter, start, limit) in _TERMS.items()}
    for letter, what in _OTHER_TERMS.items():
        if any(_pair(section, letter, 0.0, 0.0)):
            key = section.full(f"start_pref_{letter}")
            raise RecipeError(f"{key}: lamella's loss has no term for {what}; set it to 0, or train with deepmd-kit.")
    for end in ("start", "limit"):
        section.neutral(
            f"{end}_pref_h", (0, 0.0), "lamella's loss has no term for Hessians", "set it to 0, or train with deepmd-kit"
        )
    section.neutral(
        "enable_atom_ener_coeff",
        (False,),
        "lamella's energy is the plain sum over atoms",
        "train such a model with deepmd-kit",
    )
    section.ignore("it belongs to a term that is off", "use_default_pf", "numb_generalized_coord")
    mean = section.text("loss_func", "mse", ("mse", "mae"))
    huber, intensive = section.flag("use_huber", False), section.flag("intensive_ener_virial", False)
    by_norm, relative = section.flag("f_use_norm", False), section.number("relative_f", None)
    kind = _kind(section, mean, huber, intensive)
    if by_norm and kind not in ("huber", "mae"):
        raise refusal(
            section.full("f_use_norm"), True, "it needs use_huber or loss_func: mae, in deepmd-kit too", "remove it"
        )
    if huber and relative is not None:
        raise refusal(
            section.full("relative_f"), relative, "not with use_huber, in deepmd-kit neither", "remove one of them"
        )
    if relative == 0.0:
        raise refusal(section.full("relative_f"), relative, "an atom without force would be divided by 0", "give 0.1, say")
    delta = section.take("huber_delta", 0.01)
    section.end()
    force_error = "vector" if by_norm else "component"
    return {"kind": kind, **prefactors, "huber_delta": delta, "force_error": force_error, "relative_forces": relative}


def _kind(section: Section, mean: str, huber: bool, intensive: bool) -> LossKind:
    if mean == "mae":
        if huber:
            section.notes.add(section.key("use_huber"), "no effect beside loss_func: mae, in deepmd-kit neither")
        return "mae"
    if huber:
        return "huber"
    return "intensive" if intensive else "squared"


def _pair(section: Section, letter: str, start: float, limit: float) -> list[float]:
    """(start, limit) of a term; deepmd-kit leaves out a term of which either is 0."""
    pair = [section.number(f"start_pref_{letter}", start), section.number(f"limit_pref_{letter}", limit)]
    if any(pair) and not all(pair):
        section.notes.add(
            f"{section.key(f'start_pref_{letter}')}, limit_pref_{letter}",
            "off: deepmd-kit leaves out a term of which either prefactor is 0",
        )
        return [0.0, 0.0]
    return pair


def write_loss(loss: LossConfig, where: str) -> dict[str, Any]:
    """Their ``loss``.

    Raises:
        RecipeError: a term that deepmd-kit would leave out.
    """
    section: dict[str, Any] = {"type": "ener"}
    for label, (start, limit) in loss.prefactors().items():
        if (start == 0.0) != (limit == 0.0):
            raise refusal(
                f"{where}.{label}",
                [start, limit],
                "deepmd-kit leaves out a term of which either prefactor is 0",
                "write 1e-6, say, in place of 0",
            )
        letter = _TERMS[label][0]
        section |= {f"start_pref_{letter}": start, f"limit_pref_{letter}": limit}
    section["loss_func"] = "mae" if loss.kind == "mae" else "mse"
    section["use_huber"] = loss.kind == "huber"
    section["intensive_ener_virial"] = loss.kind == "intensive"
    section["f_use_norm"] = loss.force_error == "vector"
    delta = loss.huber_delta
    section["huber_delta"] = list(delta) if isinstance(delta, tuple) else delta
    if loss.relative_forces is not None:
        section["relative_f"] = loss.relative_forces
    return section
