"""``training`` and ``validating``: length of a run, and what it writes how often."""

from __future__ import annotations

from typing import Any, Final

from lamella.train.deepmd_input.section import Section, refusal
from lamella.train.recipe import Recipe

__all__ = ["read_steps", "read_training", "write_training"]

_FILES: Final = (
    *("disp_file", "save_dir", "save_ckpt", "ckpt_keep_ratio", "ema_ckpt_keep", "tensorboard_log_dir", "tensorboard_freq"),
    *("profiling", "profiling_file", "enable_profiler", "disp_training", "time_training", "disp_avg", "numb_test"),
)
_MACHINE: Final = ("zero_stage", "neighbor_graph_method", "enable_compile", "enable_tf32", "acc_freq")
_VALIDATING: Final = (
    *("ema_full_validation", "save_best", "save_best_dir", "max_best_ckpt", "validation_metric", "full_val_file"),
    *("full_val_start", "compiled_infer", "tf32_infer", "amp_infer"),
)
_STEPS: Final = ("stop_batch", "num_step", "num_steps", "numb_step")
_EPOCHS: Final = ("numb_epoch", "num_epochs", "num_epoch", "numb_epochs", "num_epoch_dict")


def read_steps(training: Section) -> int:
    """Length of the run."""
    for key in _EPOCHS:
        training.neutral(
            key, ({},), "lamella counts steps", "give numb_steps instead: `dp` prints the number it computes when it starts"
        )
    steps: int = training.whole("numb_steps", aliases=_STEPS)
    return steps


def read_training(training: Section, validating: Section) -> dict[str, Any]:
    """Our ``training`` but the number of steps.

    Args:
        training: ``training``; nothing may be left of it afterwards.
        validating: ``validating``.
    """
    save_every = training.whole("save_freq", 1000)
    average = training.flag("enable_ema", False)
    decay = training.number("ema_decay", 0.999)
    if average:
        training.notes.add(
            training.key("enable_ema"),
            "lamella's saved model holds the averaged weights, and its average forgets the first steps faster",
        )
    content = {
        "valid_every": save_every,
        "log_every": training.whole("disp_freq", 1000),
        "save_every": save_every,
        "keep": training.whole("max_ckpt_keep", 5),
        "ema": decay if average else None,
        "tensorboard": training.flag("tensorboard", False),
    }
    training.neutral(
        "change_bias_after_training", (False,), "lamella leaves the baseline as it is", "run `dp change-bias` on the result"
    )
    training.neutral(
        "mixed_precision", (), "lamella computes in one precision", "set precision in descriptor and fitting_net"
    )
    training.ignore("files and the display, not what is learned", *_FILES)
    training.ignore("how it is computed, not what", *_MACHINE)
    training.end()
    if validating.flag("full_validation", False):
        content["valid_every"] = validating.whole("validation_freq", 5000)
    validating.ignore("lamella validates without it", "validation_freq")
    validating.ignore("lamella judges steps by the validation loss at the limit prefactors", *_VALIDATING)
    validating.end()
    return content


def write_training(recipe: Recipe) -> dict[str, Any]:
    """Their ``training`` but its data.

    Raises:
        RecipeError: something deepmd-kit does not have.
    """
    ours = recipe.training
    content: dict[str, Any] = {
        "numb_steps": ours.steps,
        "seed": recipe.seed,
        "disp_file": "lcurve.out",
        "disp_freq": ours.log_every,
        "save_freq": ours.save_every,
        "max_ckpt_keep": ours.keep,
        "tensorboard": ours.tensorboard,
    }
    if ours.ema is not None:
        content |= {"enable_ema": True, "ema_decay": ours.ema}
    if recipe.optimizer.clip is not None:
        content["gradient_max_norm"] = recipe.optimizer.clip
    if recipe.seed >= 2**32:
        raise refusal("seed", recipe.seed, "deepmd-kit's seeds have 32 bits", "choose a smaller one")
    return content
