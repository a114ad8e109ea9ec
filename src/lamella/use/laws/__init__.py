"""``lamella.check``: the laws of physics that every potential must obey, measured (docs/physics.md)."""

from lamella.use.laws.rows import Check, Checks
from lamella.use.laws.run import LAWS, check, check_law, iter_checks

__all__ = ["LAWS", "Check", "Checks", "check", "check_law", "iter_checks"]
