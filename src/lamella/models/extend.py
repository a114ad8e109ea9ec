"""The same potential with other tasks or further elements: a new model; what the old one predicts stays as it is.

Elements are added behind those there are, so that a species index never changes its meaning:

=========================  ==============================================================================================
embedding of elements      a row for each; no row where vectors come from electronic configurations
networks of an element     DeepPot-SE: a network for each new element, or pair with one; a head network for each
environment matrix         mean 0 and scale of the element likened to (1 without one), until training takes them from data
``sel`` of DeepPot-SE      0 neighbours of a new element: sums stay normalised as they were, and none of them is lost
energy per element         0
=========================  ==============================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from lamella.errors import InputError, nearest
from lamella.models.backbone import BackboneConfig
from lamella.models.heads import EnergyHead, HeadConfig
from lamella.models.potential import ModelConfig, Potential
from lamella.models.se_a import SeA
from lamella.nn.embedding import TypeEmbedding, with_shortcut

__all__ = ["only_tasks", "with_elements", "with_tasks"]

State = dict[str, Tensor]


def only_tasks(potential: Potential, names: Sequence[str]) -> Potential:
    """The model with some of its tasks, in the order given; the others' heads are gone.

    Raises:
        InputError: an unknown task, one named twice, or none.
    """
    if not names or len(set(names)) != len(names):
        raise InputError(f"tasks {list(names)}: name at least one, and each once.")
    rows = [potential.task_index(name) for name in names]
    state = potential.state_dict()
    if not potential.config.head.serves_all:
        heads = {name: value for name, value in state.items() if name.startswith("heads.")}
        state = {name: value for name, value in state.items() if name not in heads}
        for position, row in enumerate(rows):
            own, new = f"heads.{row}.", f"heads.{position}."
            state |= {new + name.removeprefix(own): value for name, value in heads.items() if name.startswith(own)}
    state |= {name: state[name][rows] for name in ("task_code", "baseline")}
    return _filled(potential, potential.config, potential.elements, names, state)


def with_tasks(potential: Potential, sources: Mapping[str, str | None], seed: int = 1) -> Potential:
    """The model with further tasks.

    Args:
        potential: not changed.
        sources: name of each new task, and the task that it starts as a copy of: head, code and energies per element; None
            for a random head, or a random code where tasks share a head.
        seed: of what is random; the task's name enters too.

    Raises:
        InputError: no name, a task that is there already, a source that is not, or tasks that this head cannot tell apart.
    """
    grown = potential
    for name, source in sources.items():
        if not name.strip() or not name.isprintable():
            raise InputError(f"{name!r} is no name of a task; use letters, digits, - and _.")
        if name in grown.tasks:
            raise InputError(f"the model has a task {name!r} already; choose another name.")
        if source is not None and source not in potential.tasks:
            raise InputError(
                f"the model has no task {source!r}{nearest(source, potential.tasks)}; it has {', '.join(potential.tasks)}."
            )
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(_seed(seed, name))
            grown = _with_task(grown, name, source)
    return grown


def with_elements(potential: Potential, likened: Mapping[str, str | None], seed: int = 1) -> Potential:
    """The model with further elements.

    Args:
        potential: not changed.
        likened: chemical symbol of each new element, and the element of the model whose vectors and networks it starts as a
            copy of; None for random ones.
        seed: of what is random.

    Raises:
        RecipeError: a symbol that is none, that the model has already, or an architecture that cannot take it.
    """
    if not likened:
        return potential
    elements = (*potential.elements, *likened)
    config = potential.config.model_copy(update={"backbone": _with_sel(potential.config.backbone, likened)})
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        fresh = Potential(config, elements, potential.tasks).cast(potential.dtype)
    origins = [
        k if k < len(potential.elements) else _origin(potential, likened[symbol]) for k, symbol in enumerate(elements)
    ]
    old, new = potential.state_dict(), fresh.state_dict()
    state = {name: value if name not in old else _grown(name, value, old[name], origins) for name, value in new.items()}
    state |= _networks(potential, fresh, origins, old, new)
    state |= _embeddings(potential, fresh, origins)
    return _filled(potential, config, elements, potential.tasks, state)


def _seed(seed: int, name: str) -> int:
    """Of the task's own."""
    generator = torch.Generator().manual_seed(seed)
    first = int(torch.randint(2**31, (1,), generator=generator))
    return (first + int.from_bytes(name.encode(), "little")) % 2**63


def _filled(
    potential: Potential, config: ModelConfig, elements: Sequence[str], tasks: Sequence[str], state: Mapping[str, Tensor]
) -> Potential:
    """A model of given tensors, on the old one's device; in training where that is."""
    with torch.random.fork_rng(devices=()):
        made = Potential(config, elements, tasks, potential.metadata).cast(potential.dtype)
    made.load_state_dict({name: value.detach().clone() for name, value in state.items()})
    return made.to(potential.device).train(potential.training)


def _with_task(potential: Potential, name: str, source: str | None) -> Potential:
    head = potential.config.head
    state = dict(potential.state_dict())
    row = None if source is None else potential.task_index(source)
    baseline = torch.zeros_like(potential.baseline[:1]) if row is None else potential.baseline[row : row + 1]
    state["baseline"] = torch.cat([potential.baseline, baseline])
    config = potential.config
    if head.task_dim:
        config = _with_code(potential, row, state)
    elif head.shared:
        if row is None:
            raise InputError(
                "the tasks of this model share a head without encoding, so a new one cannot have a random head; start "
                "from a task of the model, or keep no other task (--only)."
            )
        state["task_code"] = torch.cat([potential.task_code, potential.task_code[:1]])
    else:
        state["task_code"] = torch.cat([potential.task_code, potential.task_code[:1]])
        position = len(potential.heads)
        origin = _fresh_head(potential) if row is None else potential.heads[row]
        state |= {f"heads.{position}.{key}": value for key, value in origin.state_dict().items()}
    return _filled(potential, config, potential.elements, (*potential.tasks, name), state)


def _fresh_head(potential: Potential) -> EnergyHead:
    backbone = potential.config.backbone
    head = EnergyHead(potential.config.head, backbone.output_dim, potential.elements, backbone.element_heads)
    return head.to(dtype=potential.dtype, device=potential.device)


def _with_code(potential: Potential, row: int | None, state: State) -> ModelConfig:
    """Give the new task a code of its own: a column nobody uses, or one more; changes ``state``."""
    config, code_TC = potential.config, potential.task_code
    free = torch.nonzero((code_TC == 0).all(dim=0)).flatten().tolist()
    width = code_TC.shape[1]
    column = free[0] if free else width
    if not free:
        wider = config.head.model_copy(update={"task_dim": width + 1})
        _check_shortcut(config, wider)
        config = config.model_copy(update={"head": wider})
        code_TC = torch.nn.functional.pad(code_TC, (0, 1))
    own = torch.zeros_like(code_TC[:1])
    own[0, column] = 1.0
    state["task_code"] = torch.cat([code_TC, own])
    layer = "hidden.0" if config.head.hidden else "out"
    for name in [name for name in state if name.startswith("heads.0.nets.") and name.endswith(f"{layer}.weight")]:
        base, codes = state[name].split([len(state[name]) - width, width])
        if row is None:
            vector = torch.randn_like(base[0]) / sum(state[name].shape) ** 0.5
        else:
            vector = potential.task_code[row].to(codes.dtype) @ codes
        rows = [*codes, base.new_zeros(base.shape[1])][: code_TC.shape[1]]
        state[name] = torch.cat([base, torch.stack([vector if k == column else code for k, code in enumerate(rows)])])
    return config


def _check_shortcut(config: ModelConfig, wider: HeadConfig) -> None:
    """A first layer has a shortcut where its widths agree: a code more must not make or break one."""
    if not config.head.hidden:
        return
    first = config.head.hidden[0]
    widths = [config.backbone.output_dim + config.head.frame_params + head.task_dim for head in (config.head, wider)]
    copies = [first // width if first in (width, 2 * width) else 0 for width in widths]
    if copies[0] != copies[1]:
        raise InputError(
            f"the shared head's first layer is {first} wide, and one task more (task_dim {wider.task_dim}) changes its "
            "shortcut, so the other tasks would not stay what they are; start with --only, or train from scratch with a "
            "larger model.head.task_dim."
        )


def _with_sel(backbone: BackboneConfig, likened: Mapping[str, str | None]) -> BackboneConfig:
    """DeepPot-SE: a number of neighbours for every element, 0 for new ones; others have one number for all."""
    if backbone.kind != "se_a":
        return backbone
    return backbone.model_copy(update={"sel": backbone.counts | dict.fromkeys(likened, 0)})


def _origin(potential: Potential, symbol: str | None) -> int | None:
    if symbol is None:
        return None
    if symbol not in potential.elements:
        raise InputError(f"{symbol} is not an element of the model ({' '.join(potential.elements)}); liken to one that is.")
    return potential.elements.index(symbol)


def _grown(name: str, new: Tensor, old: Tensor, origins: Sequence[int | None]) -> Tensor:
    """One tensor of the larger model: the old values, and at new elements what they are likened to."""
    if name == "baseline":
        grown = torch.zeros_like(new)
        grown[:, : old.shape[1]] = old
        return grown
    if name.endswith(_BY_ELEMENT):
        rows = [new[k] if origin is None else old[origin] for k, origin in enumerate(origins)]
        return torch.stack(rows)
    return old if old.shape == new.shape else new


_BY_ELEMENT: Final = ("environment.mean", "environment.std")
"""Endings of buffers that have a row for each element."""


def _networks(
    potential: Potential,
    fresh: Potential,
    origins: Sequence[int | None],
    old: Mapping[str, Tensor],
    new: Mapping[str, Tensor],
) -> State:
    """Networks that belong to an element, or to a pair of them."""
    if not potential.config.backbone.element_heads:
        return {}
    n_old, n_new = len(potential.elements), len(fresh.elements)
    state: State = {}
    for head in range(len(potential.heads)):
        for k, origin in enumerate(origins):
            state |= _moved(f"heads.{head}.nets.{k}.", None if origin is None else f"heads.{head}.nets.{origin}.", old, new)
    backbone = fresh.backbone
    for k in range(len(backbone.nets) if isinstance(backbone, SeA) else 0):
        centre, neighbour = k % n_new, k // n_new
        if isinstance(backbone, SeA) and backbone.config.one_sided:
            origin = origins[k]
        else:
            first, second = origins[centre], origins[neighbour]
            origin = None if first is None or second is None else first + n_old * second
        state |= _moved(f"backbone.nets.{k}.", None if origin is None else f"backbone.nets.{origin}.", old, new)
    return state


def _moved(target: str, source: str | None, old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> State:
    names = [name for name in new if name.startswith(target)]
    return {name: new[name] if source is None else old[source + name.removeprefix(target)] for name in names}


def _embeddings(potential: Potential, fresh: Potential, origins: Sequence[int | None]) -> State:
    """Embeddings of one-hot rows: a row more for each element.

    A table has a shortcut where its width is the number of elements, or twice that. The weights take up what the shortcut
    of either number adds, so that elements stay embedded as they were: to the last bit where the larger table has none.
    """
    state: State = {}
    made = dict(fresh.named_modules())
    for name, old in potential.named_modules():
        new = made.get(name)
        if not isinstance(old, TypeEmbedding) or not isinstance(new, TypeEmbedding) or old.electrons is not None:
            continue
        table = with_shortcut(old.weight)
        rows = [new.weight[k] if origin is None else table[origin] for k, origin in enumerate(origins)]
        shortcut = with_shortcut(torch.zeros_like(new.weight))
        known = torch.tensor([origin is not None for origin in origins], device=shortcut.device)
        state[f"{name}.weight"] = torch.stack(rows) - shortcut * known[:, None]
    return state
