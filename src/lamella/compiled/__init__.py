"""Compiled models: one graph of operations for energies and forces, code for it by a compiler, eager where that fails."""

from lamella.compiled.program import Compilation, Programs, compile_model

__all__ = ["Compilation", "Programs", "compile_model"]
