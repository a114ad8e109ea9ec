"""What an architecture is, in words: for ``lamella show`` and the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from lamella.models.backbone import BackboneConfig

__all__ = ["ARCHITECTURES", "cutoffs", "sizes"]

ARCHITECTURES: Final = {"se_a": "DeepPot-SE", "dpa1": "DPA-1", "dpa2": "DPA-2", "dpa3": "DPA-3"}
"""Name by ``kind``."""


def sizes(config: BackboneConfig) -> str:
    """Every whole number of the configuration, and every list of such: layers, widths, normalising counts."""
    return ", ".join(_numbers(config.model_dump(exclude={"kind"}), ""))


def _numbers(section: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, value in section.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int) and not isinstance(value, bool):
            yield f"{prefix}{name} {value}"
        elif isinstance(value, tuple) and value and all(isinstance(item, int) for item in value):
            yield f"{prefix}{name} {'-'.join(map(str, value))}"


def cutoffs(config: BackboneConfig) -> str:
    """Every cutoff, where its switch begins, and of which kind that is."""
    names = [shell.name.removesuffix("cutoff") for shell in config.shells]
    return "; ".join(
        f"{name}{shell.end:g} Å, {shell.kind} switch from {shell.start:g} Å"
        for name, shell in zip(names, config.shells, strict=True)
    )
