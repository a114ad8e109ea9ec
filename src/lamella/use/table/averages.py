"""One number for many sets.

=====================  ==========================================================================================
name                   definition, with weights w and errors e of the sets
=====================  ==========================================================================================
WARMSE                 Σ w e / Σ w                        (DPA-2 paper, Table 2)
log-weighted average   exp( Σ w log e / Σ w )             (DPA3 paper; LAMBench)
normalised error       ē = min(e / e_zero, 1) by quantity and set; their geometric mean within each domain; over
                       quantities the mean with 0.5 for energy and forces each, or 0.45, 0.45 and 0.1 where virials are
                       labelled; over domains the plain mean         (LAMBench: 0 perfect, 1 no better than no network)
=====================  ==========================================================================================

An average compares models only over the same sets: :func:`shared` are those on which every model gave the quantity; one that
gave it on no set at all takes no average from the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from lamella.fields import LABELS
from lamella.use.table.result import Row, Table

__all__ = ["AVERAGES", "average", "log_weighted", "normalised", "quantities", "shared", "weighted"]

_PARTS: Final[dict[bool, dict[str, float]]] = {
    False: {"energy": 0.5, "forces": 0.5},
    True: {"energy": 0.45, "forces": 0.45, "virial": 0.1},
}
"""Share of each quantity in the normalised error, without and with virials."""


def weighted(errors: Sequence[float], weights: Sequence[float]) -> float:
    """Σ w e / Σ w."""
    return math.fsum(w * e for w, e in zip(weights, errors, strict=True)) / math.fsum(weights)


def log_weighted(errors: Sequence[float], weights: Sequence[float]) -> float:
    """exp(Σ w log e / Σ w); 0 where an error that counts is 0."""
    pairs = [(w, e) for w, e in zip(weights, errors, strict=True) if w]
    if any(e == 0.0 for _, e in pairs):
        return 0.0
    return math.exp(math.fsum(w * math.log(e) for w, e in pairs) / math.fsum(w for w, _ in pairs))


AVERAGES: Final[dict[str, Callable[[Sequence[float], Sequence[float]], float]]] = {
    "WARMSE": weighted,
    "log-weighted": log_weighted,
}
"""By the name they have in the table."""


def quantities(table: Table) -> list[str]:
    """Those that any set is labelled with."""
    return [name for name in LABELS if any(name in row.labels.counts for row in table.rows)]


def shared(table: Table, quantity: str) -> list[Row]:
    """Sets with the label, of weight above 0, on which every model gave the quantity that gave it on any."""
    rows = _weighing(table, quantity)
    answering = [model for model in table.models if own(table, quantity, model)]
    return [row for row in rows if answering and all(row.rmse(model, quantity) is not None for model in answering)]


def own(table: Table, quantity: str, model: str) -> list[Row]:
    """Those on which this model did."""
    return [row for row in _weighing(table, quantity) if row.rmse(model, quantity) is not None]


def average(rows: Sequence[Row], quantity: str, model: str | None, kind: str) -> float | None:
    """An average over some sets; of the standard deviation of the labels where no model is named; ``None`` of no set."""
    values = [row.labels.std[quantity] if model is None else row.rmse(model, quantity) for row in rows]
    known = [value for value in values if value is not None]
    return AVERAGES[kind](known, [row.config.weight for row in rows]) if known else None


def normalised(table: Table, model: str) -> float | None:
    """The normalised error of a model; ``None`` where a set is missing."""
    rows = [row for row in table.rows if row.config.weight > 0]
    if not rows or any(row.cells[model].compared is None for row in rows):
        return None
    domains: dict[str, list[Row]] = {}
    for row in rows:
        domains.setdefault(row.config.domain, []).append(row)
    found = [_of_domain(members, model) for members in domains.values()]
    known = [value for value in found if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(found) else None


def _of_domain(rows: Sequence[Row], model: str) -> float | None:
    """Mean over quantities of geometric means over sets."""
    means: dict[str, float] = {}
    for name in LABELS:
        ratios = []
        for row in rows:
            error, zero = row.rmse(model, name), row.labels.zero.get(name)
            if error is not None and zero:
                ratios.append(min(error / zero, 1.0))
        if ratios:
            means[name] = log_weighted(ratios, [1.0] * len(ratios))
    parts = {name: share for name, share in _PARTS["virial" in means].items() if name in means}
    return math.fsum(share * means[name] for name, share in parts.items()) / math.fsum(parts.values()) if parts else None


def _weighing(table: Table, quantity: str) -> list[Row]:
    return [row for row in table.rows if quantity in row.labels.counts and row.config.weight > 0]
