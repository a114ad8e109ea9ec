"""Models by the words of a command line.

==================================  ==============================================================
words                               model
==================================  ==============================================================
``runs/water``                      a lamella model: whatever :func:`lamella.load` reads
``runs/alloys@Ti``                  the same, answering as one of its tasks
``ase:PATH.Class(key="value")``     an ASE calculator: the import path of its class, and its arguments
``predictions:FILE``                a file of predictions; ``{set}`` stands for the name of a set
==================================  ==============================================================

Any of them may have a name in front: ``NAME=…``.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ase.calculators.calculator import BaseCalculator

from lamella.errors import InputError, nearest
from lamella.formats.load import load
from lamella.models.potential import Potential
from lamella.train.paths import absolute
from lamella.use.table.answer import Calculated, FromFile, Learned, Respondent
from lamella.use.table.config import PredictionsConfig

__all__ = ["ASE", "PREDICTIONS", "absolute_reference", "named", "respondents", "split_name"]

ASE: Final = "ase:"
PREDICTIONS: Final = "predictions:"

_NAMED: Final = re.compile(r"([A-Za-z0-9_.+-]+)=(.+)", re.DOTALL)
_EXAMPLE: Final = "ase:ase.calculators.emt.EMT() or 'ase:tblite.ase.TBLite(method=\"GFN2-xTB\")'"


def named(words: Sequence[str]) -> dict[str, str]:
    """Models of a command line by the name they have in the table.

    Raises:
        InputError: two of one name.
    """
    table: dict[str, str] = {}
    for word in words:
        name, reference = split_name(word)
        if name in table:
            raise InputError(f"two models are called {name!r}; give each a name of its own: NAME={reference}.")
        table[name] = reference
    return table


def split_name(word: str) -> tuple[str, str]:
    """``(name, rest)`` of ``NAME=rest``; without one, a short name made of the rest."""
    match = _NAMED.fullmatch(word)
    if match and not Path(word).exists():
        return match[1], match[2]
    if word.startswith(ASE):
        return word.removeprefix(ASE).partition("(")[0].rpartition(".")[2], word
    if word.startswith(PREDICTIONS):
        return Path(word.removeprefix(PREDICTIONS).replace("{set}", "")).stem.strip("_-.") or "predictions", word
    return Path(word).name or word, word


def respondents(
    models: Mapping[str, str | PredictionsConfig],
    dtype: str | None = None,
    device: str | None = None,
    functions: bool = False,
) -> list[Respondent]:
    """Models by name; a lamella model named twice is read once.

    Args:
        models: see the module.
        dtype: of lamella models; that of each checkpoint where not given.
        device: of lamella models.
        functions: whether ``ase:`` may name a function that makes a calculator. A file written by somebody else should
            not be able to call anything but calculators.

    Raises:
        InputError: a calculator that cannot be made, a task that a model does not have.
        CheckpointError: a model that cannot be read.
    """
    loaded: dict[str, Potential] = {}
    found: list[Respondent] = []
    for name, reference in models.items():
        if isinstance(reference, PredictionsConfig):
            found.append(FromFile(name, reference.predictions, reference.keys))
        elif reference.startswith(ASE):
            found.append(Calculated(name, reference, _calculator(reference, functions)))
        elif reference.startswith(PREDICTIONS):
            found.append(FromFile(name, reference.removeprefix(PREDICTIONS)))
        else:
            path, task = _model_and_task(reference)
            if path not in loaded:
                loaded[path] = load(path, device, dtype)
            found.append(Learned(name, reference, loaded[path], task))
    return found


def absolute_reference(reference: str) -> str:
    """The same words with what lies on disk by its absolute path, so that they can be read from elsewhere."""
    if reference.startswith(ASE):
        return reference
    if reference.startswith(PREDICTIONS):
        return PREDICTIONS + absolute(reference.removeprefix(PREDICTIONS))
    path, task = _model_and_task(reference)
    if not Path(path).expanduser().exists():
        return reference  # a published model has no path
    return absolute(path) + (f"@{task}" if task is not None else "")


def _model_and_task(reference: str) -> tuple[str, str | None]:
    """``PATH@TASK`` in parts; what lies on disk under the whole of it has no task."""
    path, mark, task = reference.rpartition("@")
    return (path, task) if mark and not Path(reference).exists() else (reference, None)


def _calculator(reference: str, functions: bool) -> BaseCalculator:
    """The calculator that ``ase:module.Class(key=value, ...)`` names."""
    path, arguments = _parsed(reference)
    made_by = _imported(path, reference)
    is_class = inspect.isclass(made_by) and issubclass(made_by, BaseCalculator)
    if not is_class and not (functions and inspect.isfunction(made_by)):
        what = "is no class of ASE calculators" if not functions else "makes no ASE calculator"
        raise InputError(f"{reference}: {path} {what}; name one, for example {_EXAMPLE}.")
    try:
        calculator = made_by(**arguments)
    except Exception as error:  # whatever somebody else's class raises
        raise InputError(
            f"{reference}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}; correct the arguments."
        ) from None
    if not isinstance(calculator, BaseCalculator):
        raise InputError(f"{reference}: {path} gives a {type(calculator).__name__}, no ASE calculator; name another.")
    return calculator


def _parsed(reference: str) -> tuple[str, dict[str, Any]]:
    """Import path and arguments: literals by keyword, nothing that would be executed."""
    text = reference.removeprefix(ASE).strip()
    if re.fullmatch(r"[\w.]+", text):
        return text, {}
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(item.arg is None for item in call.keywords):
            raise ValueError
        path = ast.unparse(call.func)
        if not re.fullmatch(r"[\w.]+", path):
            raise ValueError
        return path, {str(item.arg): ast.literal_eval(item.value) for item in call.keywords}
    except (SyntaxError, ValueError):
        raise InputError(
            f"{reference}: no class with arguments by keyword (numbers, texts, lists); write for example {_EXAMPLE}."
        ) from None


def _imported(path: str, reference: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        owner = importlib.import_module(module) if module else None
    except Exception as error:  # the module is somebody else's, and so are its errors
        said = (str(error).splitlines() or [""])[0]
        raise InputError(f"{reference}: {module} cannot be imported ({said}); install it, or correct the path.") from None
    found = getattr(owner, name, None)
    if found is None:
        near = nearest(name, dir(owner)) if module else ""
        raise InputError(f"{reference}: {module or path} has no {name}{near}; write for example {_EXAMPLE}.")
    return found
