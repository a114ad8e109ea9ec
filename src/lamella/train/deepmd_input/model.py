"""``model``: of one task, or of several that share parts by reference (``"key:level"``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from lamella.errors import CheckpointError, RecipeError
from lamella.formats.deepmd.model import model_config, model_params
from lamella.models.potential import ModelConfig
from lamella.train.deepmd_input.section import Notes, Section, refusal
from lamella.train.recipe import Recipe
from lamella.train.sel import SEL_CUTOFFS, auto_ratio, auto_text, nested, place_auto

__all__ = ["Branch", "DEFAULT_TASK", "read_branch", "read_branches", "write_model"]

DEFAULT_TASK: Final = "default"
"""Name of the one task of a model that names none."""

_SEL: Final[dict[str, dict[str, str]]] = {
    "se_e2_a": {"sel": "sel"},
    "se_a": {"sel": "sel"},
    "dpa1": {"sel": "sel"},
    "se_atten": {"sel": "sel"},
    "se_atten_v2": {"sel": "sel"},
    "dpa2": {"repinit.nsel": "repinit.sel", "repinit.three_body_sel": "three_body.sel", "repformer.nsel": "repformer.sel"},
    "dpa3": {"repflow.e_sel": "edge_sel", "repflow.a_sel": "angle_sel"},
}
"""By their type of descriptor: their key -> our field."""

_AUTO_BY_DEFAULT: Final = ("se_e2_a", "se_a", "dpa1", "se_atten", "se_atten_v2")
_BY_DEEPMD: Final = "train it with deepmd-kit"
_OFF: Final = "lamella does not freeze parts of a model yet"
_DTYPES: Final = {"default": "float64", "float64": "float64", "double": "float64", "float32": "float32", "single": "float32"}


class Branch(NamedTuple):
    """What the model section says of one task.

    Attributes:
        config: our configuration.
        elements: of ``type_map``.
        dtype: of the weights.
        auto: our fields of the backbone that are to be counted in the data -> ratio.
        baseline: energies per element that are given; None where they are to be fitted.
    """

    config: ModelConfig
    elements: tuple[str, ...]
    dtype: str
    auto: Mapping[str, float]
    baseline: Mapping[str, float] | None


def read_branches(content: Any, notes: Notes, source: str) -> dict[str, Branch]:
    """Every task of the model section, by name; tasks share one backbone, and one head or none.

    Raises:
        RecipeError: a model that lamella does not train.
    """
    if not isinstance(content, Mapping) or content.get("model_dict") is None:
        return {DEFAULT_TASK: read_branch(Section(content, "model", notes, source))}
    common = Section(content, "model", notes, source).rest()
    branches, shared = common.pop("model_dict"), common.pop("shared_dict", {})
    if not isinstance(branches, Mapping) or not branches or not isinstance(shared, Mapping):
        raise refusal(f"{source}: model.model_dict", branches, "not a set of tasks", "write {name: {...}}")
    used: dict[str, set[str]] = {"descriptor": set(), "fitting_net": set()}
    found = {}
    for name, own in branches.items():
        where = f"model.model_dict.{name}"
        if not isinstance(own, Mapping):
            raise refusal(f"{source}: {where}", own, "not a set of keys", "write {...} with keys in it")
        filled = {**common, **own}
        for part in ("type_map", "descriptor", "fitting_net"):
            reference = filled.get(part)
            if part in used:
                used[part].add(reference if isinstance(reference, str) else f"{name}'s own")
            filled[part] = _resolved(reference, shared, f"{source}: {where}.{part}")
        found[str(name)] = read_branch(Section(filled, where, notes, source))
    _check_sharing(found, used, source)
    return found


def _resolved(reference: Any, shared: Mapping[str, Any], where: str) -> Any:
    """What a reference ``"key:level"`` stands for; anything else as it is."""
    if not isinstance(reference, str):
        return reference
    key, colon, level = reference.partition(":")
    if key not in shared:
        raise refusal(
            where, reference, f"model.shared_dict has no {key!r}", f"it has {', '.join(map(str, shared)) or 'nothing'}"
        )
    if colon and level != "0":
        raise refusal(where, reference, "lamella's tasks share a part as a whole", f"write {key!r}")
    return shared[key]


def _check_sharing(found: Mapping[str, Branch], used: Mapping[str, set[str]], source: str) -> None:
    """One backbone for all; heads of the same shape, each of its own or one shared with a code of the task."""
    first, *others = found
    for name in others:
        for what in ("config", "elements", "dtype", "auto"):
            if getattr(found[name], what) != getattr(found[first], what):
                raise RecipeError(
                    f"{source}: model.model_dict: {first} and {name} differ in their {_WORDS[what]}; lamella's tasks share "
                    "the backbone and have heads of one shape: make them alike, or train them apart."
                )
    if len(found) == 1:
        return
    descriptors = {reference.partition(":")[0] for reference in used["descriptor"]}
    if len(descriptors) > 1:
        raise RecipeError(
            f"{source}: model.model_dict: the tasks have descriptors of their own ({', '.join(sorted(descriptors))}); "
            "lamella's tasks share one: refer to one of model.shared_dict in all of them, or train them apart."
        )
    fittings = {reference.partition(":")[0] for reference in used["fitting_net"]}
    code = found[first].config.head.task_dim
    if code and len(fittings) > 1:
        raise RecipeError(
            f"{source}: model.model_dict: dim_case_embd = {code} in fitting nets that are not shared; set it to 0, or share "
            "one fitting net of model.shared_dict."
        )
    if not code and len(fittings) < len(found):
        raise RecipeError(
            f"{source}: model.model_dict: tasks share a fitting net that is not told which task it serves; give it "
            f"dim_case_embd: {len(found)}, or each task a fitting net of its own."
        )


_WORDS: Final = {"config": "options", "elements": "type_map", "dtype": "precision", "auto": "sel"}


def read_branch(section: Section) -> Branch:
    """One model.

    Raises:
        RecipeError: of a kind that lamella does not train.
    """
    section.neutral("type", ("standard",), "lamella trains models of one descriptor and one fitting net", _BY_DEEPMD)
    descriptor, fitting = section.inner("descriptor"), section.inner("fitting_net")
    energies = section.take("preset_out_bias", None)
    section.neutral(
        "finetune_head",
        (),
        "a model to fine-tune is named under `start` of a recipe",
        "remove it, and use `lamella finetune`",
    )
    section.ignore(
        "lamella's statistics are of all training frames", "data_stat_nbatch", "data_stat_protect", "data_bias_nsample"
    )
    section.ignore("names and notes", "model_branch_alias", "info")
    dtype = _dtype(descriptor, fitting)
    _training_keys(descriptor, fitting)
    kind = descriptor.take("type")
    options = {"type": kind, **descriptor.rest()}
    type_map = section.take("type_map")
    options, auto = _without_auto(options, len(type_map) if isinstance(type_map, list) else 1)
    params = {"type_map": type_map, "descriptor": options, "fitting_net": fitting.rest(), **section.rest()}
    try:
        config = model_config(params, section.source, json=True)
    except CheckpointError as error:
        raise RecipeError(_relocated(str(error), section)) from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:  # values of the wrong kind
        reason = f"{type(error).__name__}: {error}"[:120]
        raise RecipeError(f"{section.full('descriptor')} or fitting_net is not understood ({reason}); correct it.") from None
    elements = tuple(type_map)
    return Branch(config, elements, dtype, auto, _baseline(energies, elements, section.full("preset_out_bias")))


def _relocated(message: str, section: Section) -> str:
    """The message with the whole key of this branch."""
    for start, key in (("model", ""), ("descriptor", ".descriptor.type: "), ("fitting", ".fitting_net.type: ")):
        if message.startswith(f"{section.source}: {start}"):
            rest = message.removeprefix(f"{section.source}: {start}" if not key else f"{section.source}: ")
            return f"{section.source}: {section.where}{key}{rest}"
    return message


def _dtype(descriptor: Section, fitting: Section) -> str:
    """The one dtype of descriptor and fitting net: the wider of the two, as for checkpoints."""
    found = []
    for part in (descriptor, fitting):
        name = part.take("precision", "default")
        if not isinstance(name, str) or name not in _DTYPES:
            raise refusal(part.full("precision"), name, "lamella trains in float32 or float64", "choose one of them")
        found.append(_DTYPES[name])
    if found[0] != found[1]:
        narrow = (descriptor, fitting)[found.index("float32")]
        narrow.notes.add(
            narrow.key("precision"),
            "float64 here, since the other part's is and lamella trains in one precision; dtype=float32 is faster",
        )
        return "float64"
    return found[0]


def _training_keys(descriptor: Section, fitting: Section) -> None:
    """Keys that say nothing of the function, but how it is trained; our translators of checkpoints pass over them."""
    for part in (descriptor, fitting):
        part.ignore("initial weights are random in either code", "seed")
        flags = part.take("trainable", True)
        if flags is not True and not (isinstance(flags, list) and all(flag is True for flag in flags)):
            raise refusal(part.full("trainable"), flags, _OFF, "remove it, or train with deepmd-kit")
    for part, where in ((descriptor, ()), (descriptor, ("repformer",)), (descriptor, ("repflow",))):
        _inner_training_keys(part, where)
    fitting.neutral("rcond", (), "lamella's fit of the baseline has a tolerance of its own", "remove it")


def _inner_training_keys(descriptor: Section, where: tuple[str, ...]) -> None:
    inner = Section(descriptor.peek(where), ".".join((descriptor.where, *where)), descriptor.notes, descriptor.source)
    inner.neutral("trainable_ln", (True,), _OFF, "remove it, or train with deepmd-kit")
    if where == ("repflow",):
        inner.neutral("update_residual_init", ("const",), "lamella's DPA-3 starts all steps alike", 'write "const"')
        inner.neutral("skip_stat", (False,), "deprecated", "remove it and give fix_stat_std, 0.3 say")


def _without_auto(options: dict[str, Any], n_types: int) -> tuple[dict[str, Any], dict[str, float]]:
    """Options of a descriptor with stand-ins for every ``auto``, and the ratio by our field."""
    kind = options.get("type")
    if not isinstance(kind, str):
        return options, {}
    if kind in _AUTO_BY_DEFAULT:
        options = {"sel": "auto", **options}
    ratios: dict[str, float] = {}
    for key, field in _SEL.get(kind, {}).items():
        *above, name = key.split(".")
        holder: Any = options
        for part in above:
            holder = holder.get(part) if isinstance(holder, Mapping) else None
        ratio = auto_ratio(holder.get(name)) if isinstance(holder, Mapping) else None
        if ratio is None:
            continue
        options = place_auto(options, {key: [1] * n_types if kind in ("se_e2_a", "se_a") else 1})
        if field != "three_body.sel" or holder.get("use_three_body"):
            ratios[field] = ratio
    return options, ratios


def _baseline(preset: Any, elements: tuple[str, ...], where: str) -> dict[str, float] | None:
    """``{"energy": [one number for each type]}`` as energies per element."""
    if preset in (None, {}):
        return None
    energies = preset.get("energy") if isinstance(preset, Mapping) and set(preset) == {"energy"} else None
    if not isinstance(energies, list) or len(energies) != len(elements):
        raise refusal(where, preset, "not one energy for each element of type_map", 'write {"energy": [eV, ...]}')
    values = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in energies]
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        raise refusal(where, preset, "lamella fits the energies of all elements or of none", "give all, or remove it")
    return {symbol: float(value) for symbol, value in zip(elements, values, strict=True)}


def write_model(recipe: Recipe, elements: tuple[str, ...]) -> dict[str, Any]:
    """Their ``model``: of one branch, or of several that share the descriptor (and a fitting net that knows the task).

    Raises:
        RecipeError: deepmd-kit has no such model.
    """
    try:
        params = _without_nulls(model_params(_with_stand_ins(recipe), elements, (recipe.dtype, recipe.dtype)))
    except CheckpointError as error:
        raise RecipeError(str(error)) from None
    params["descriptor"] = _with_auto({**params["descriptor"], "seed": recipe.seed}, recipe)
    params["fitting_net"] = {**params["fitting_net"], "seed": recipe.seed}
    if len(recipe.tasks) == 1 and not recipe.model.head.task_dim:
        return {"type": "standard", **params, **_preset(recipe, next(iter(recipe.tasks)), elements)}
    rest = {key: value for key, value in params.items() if key not in ("type_map", "descriptor", "fitting_net")}
    shared = {"type_map": params["type_map"], "descriptor": params["descriptor"]}
    if recipe.model.head.task_dim:
        shared["fitting_net"] = params["fitting_net"]
    references = {key: key for key in shared}
    return {
        "shared_dict": shared,
        "model_dict": {
            name: {**references, **({} if "fitting_net" in shared else {"fitting_net": dict(params["fitting_net"])}), **rest}
            | _preset(recipe, name, elements)
            for name in recipe.tasks
        },
    }


def _without_nulls(content: Any) -> Any:
    """The same without keys that hold null: deepmd-kit wants some of them absent instead."""
    if isinstance(content, dict):
        return {key: _without_nulls(value) for key, value in content.items() if value is not None}
    return content


def _with_stand_ins(recipe: Recipe) -> ModelConfig:
    """The model with a number in place of every ``auto`` yet to be counted: more neighbours within a longer cutoff."""
    ratios = recipe.sel_from_data
    backbone = recipe.model.model_dump(mode="json")["backbone"]
    if not ratios or backbone["kind"] == "se_a":
        return recipe.model
    fields = {
        field: cutoff for field, cutoff in SEL_CUTOFFS[backbone["kind"]].items() if nested(backbone, field) is not None
    }
    numbers, most = {}, 0
    for field in sorted(fields, key=lambda field: float(nested(backbone, fields[field]))):
        most = most + 1 if field in ratios else max(most, int(nested(backbone, field)))
        if field in ratios:
            numbers[field] = most
    return ModelConfig.model_validate({**recipe.model.model_dump(mode="json"), "backbone": place_auto(backbone, numbers)})


def _with_auto(descriptor: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    fields = {field: key for key, field in _SEL[descriptor["type"]].items()}
    return place_auto(descriptor, {fields[field]: auto_text(ratio) for field, ratio in recipe.sel_from_data.items()})


def _preset(recipe: Recipe, task: str, elements: tuple[str, ...]) -> dict[str, Any]:
    """Their key for energies per element that are given."""
    baseline = recipe.tasks[task].baseline
    if baseline == "least_squares":
        return {}
    if isinstance(baseline, str):
        raise refusal(f"tasks.{task}.baseline", baseline, "deepmd-kit fits energies or is given them", "give them in eV")
    missing = [symbol for symbol in elements if symbol not in baseline]
    if missing:
        raise refusal(f"tasks.{task}.baseline", dict(baseline), f"no energy of {missing[0]}", "give one for each element")
    return {"preset_out_bias": {"energy": [baseline[symbol] for symbol in elements]}}
