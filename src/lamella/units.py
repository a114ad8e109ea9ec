"""Units: Å, eV, fs, K inside; anything else is converted at the door, by these factors.

Values are those of ASE (CODATA 2014), so that lamella and ASE agree to the last digit.
"""

from ase import units as _ase

GPA: float = _ase.GPa
"""1 GPa in eV/Å³."""

FS: float = _ase.fs
"""1 fs in ASE's internal time unit Å·sqrt(u/eV)."""

__all__ = ["FS", "GPA"]
