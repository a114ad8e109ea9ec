"""Which architectures there are translators for."""

from __future__ import annotations

from typing import Final

from lamella.formats.deepmd.dpa1 import DPA1_TRANSLATOR
from lamella.formats.deepmd.dpa2 import DPA2_TRANSLATOR
from lamella.formats.deepmd.dpa3 import DPA3_TRANSLATOR
from lamella.formats.deepmd.se_a import SE_A_TRANSLATOR
from lamella.formats.deepmd.translator import Translator

__all__ = ["TRANSLATORS"]

TRANSLATORS: Final[dict[str, Translator]] = {
    "se_a": SE_A_TRANSLATOR,
    "dpa1": DPA1_TRANSLATOR,
    "dpa3": DPA3_TRANSLATOR,
    "dpa2": DPA2_TRANSLATOR,
}
"""By the ``kind`` of our configuration."""
