"""What a recipe that starts from a model takes from it: architecture, elements, dtype."""

from __future__ import annotations

from typing import Any

from lamella.errors import LamellaError, RecipeError
from lamella.formats.load import load
from lamella.models.potential import Potential

__all__ = ["completed", "from_model"]


def completed(content: dict[str, Any], source: str) -> dict[str, Any]:
    """The content of a recipe, with the sections ``model``, ``elements`` and ``dtype`` of the model it starts from.

    What the recipe gives itself stays; a recipe that starts from no model, or is wrong there, is returned as it is.

    Raises:
        RecipeError: the model cannot be loaded.
    """
    start = content.get("start")
    if not isinstance(start, dict) or not isinstance(start.get("model"), str) or "model" in content:
        return content
    try:
        potential = load(start["model"])
    except LamellaError as error:
        raise RecipeError(f"{source}: start.model: {error}") from None
    added = start.get("add_elements") or ()
    return {**from_model(potential, added if isinstance(added, list | tuple) else ()), **content}


def from_model(potential: Potential, added: list[Any] | tuple[Any, ...]) -> dict[str, Any]:
    """Sections of a recipe that are the model's."""
    return {
        "dtype": str(potential.dtype).removeprefix("torch."),
        "elements": [*potential.elements, *(symbol for symbol in added if symbol not in potential.elements)],
        "model": potential.config.model_dump(mode="json"),
    }
