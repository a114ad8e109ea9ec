"""What is wrong with a recipe, in one sentence with the full key and the nearest known name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from lamella.errors import RecipeError, nearest

__all__ = ["explain", "known_keys"]


def explain(error: ValidationError, root: type[BaseModel], content: Mapping[str, Any], source: str) -> RecipeError:
    """The first finding of ``error`` as a message.

    Args:
        error: what pydantic says.
        root: class that ``content`` was read as.
        content: the recipe as given.
        source: names the recipe.
    """
    findings = error.errors()
    # a misspelt key is the cause of whatever else is missing
    first = min(findings, key=lambda item: item["type"] != "extra_forbidden")
    key = ".".join(_place(first["loc"], content))
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        message = f"unknown key {key!r}{_suggestion(name, key, first['loc'], root)}; rename or remove it."
    elif first["type"] == "missing":
        message = f"the key {key!r} is missing; add it."
    elif first["type"] == "union_tag_invalid":
        kinds = first["ctx"]["expected_tags"].replace("'", "").split(", ")
        tag = first["ctx"]["tag"]
        message = f"{key}.kind = {tag!r}: there is no such kind{nearest(tag, kinds)}; use {' or '.join(kinds)}."
    elif first["type"] == "value_error":
        message = f"{key + ': ' if key else ''}{first['msg'].removeprefix('Value error, ')}."
    else:
        alike = [item for item in findings if _place(item["loc"], content) == _place(first["loc"], content)]
        wishes = " or ".join(dict.fromkeys(_decapitalised(item["msg"]) for item in alike))
        message = f"{key} = {first['input']!r}: {wishes}."
    return RecipeError(f"{source}: {message}")


def known_keys(root: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key below ``root``; ``*`` stands for a name the user chooses."""
    for name, field in root.model_fields.items():
        yield f"{prefix}{name}"
        star = "*." if _is_mapping(field.annotation) else ""
        for inner in _models(field.annotation):
            yield from known_keys(inner, f"{prefix}{name}.{star}")


def _suggestion(name: str, full: str, loc: tuple[int | str, ...], root: type[BaseModel]) -> str:
    candidates: list[type[BaseModel]] = [root]
    for part in loc[:-1]:
        fields = [owner.model_fields[part] for owner in candidates if part in owner.model_fields]
        inner = [model for field in fields for model in _models(field.annotation)]
        candidates = inner or [model for model in candidates if _kind(model) == part] or candidates
    here = nearest(name, [field for model in candidates for field in model.model_fields])
    # of another kind of backbone, say, the very same key may be known
    elsewhere = [key for key in known_keys(root) if key.split(".")[-1] == name and key != full]
    if here or elsewhere:
        return here or f" (did you mean {elsewhere[0]!r}?)"
    known = dict.fromkeys(field for model in candidates for field in model.model_fields)
    return f" (known here: {', '.join(known)})"


def _place(loc: tuple[int | str, ...], content: Any) -> list[str]:
    """The location without pydantic's names of union members: what stands in the recipe, or is missing at the end."""
    parts: list[str] = []
    for position, part in enumerate(loc):
        in_mapping = isinstance(content, Mapping) and part in content
        in_list = isinstance(content, list | tuple) and isinstance(part, int) and part < len(content)
        if in_mapping or in_list:
            parts.append(str(part))
            content = content[part]
        elif isinstance(content, Mapping) and position == len(loc) - 1:
            parts.append(str(part))
    return parts


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _kind(model: type[BaseModel]) -> Any:
    return model.model_fields["kind"].default if "kind" in model.model_fields else None


def _is_mapping(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is dict


def _decapitalised(message: str) -> str:
    return message[:1].lower() + message[1:]
