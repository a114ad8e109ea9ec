"""One training step: predictions, losses, gradient, clipping, update."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lamella.data.load import Share
from lamella.errors import TrainingError
from lamella.models.potential import Potential
from lamella.train.loss import LossConfig, Term, carrying_frames, frame_terms, total_loss
from lamella.train.optim import Adam, AdamW, set_learning_rate
from lamella.train.parallel.ranks import ALONE, Ranks
from lamella.train.room import Room, cut
from lamella.types import Prediction

__all__ = ["Outcome", "StepSetting", "train_step"]


@dataclass(frozen=True)
class Outcome:
    """What a step saw, at the weights before its update.

    Attributes:
        losses: of each draw, this process's part.
        gradient_norm: 2-norm of the whole gradient, before clipping.
        predictions: of each draw, this process's frames, detached; None where it has none.
    """

    losses: tuple[float, ...]
    gradient_norm: float
    predictions: tuple[Prediction | None, ...]


@dataclass(frozen=True)
class StepSetting:
    """What the schedule says of one step.

    Attributes:
        number: of the step, from 1, for messages.
        lr: learning rate, warm-up included.
        decay: the schedule without warm-up, for prefactors.
    """

    number: int
    lr: float
    decay: float


def train_step(
    potential: Potential,
    optimizer: torch.optim.Optimizer,
    shares: Sequence[Share],
    losses: Mapping[str, LossConfig],
    optimizer_config: Adam | AdamW,
    setting: StepSetting,
    ranks: Ranks = ALONE,
    room: Room | None = None,
) -> Outcome:
    """Change the weights by a batch of each task that was drawn.

    L = 1/|S| Σ_{k in S} L_k, every L_k the mean over that draw's frames in all processes (DPA-2 paper Eq. 44; a task that
    was drawn twice counts twice).

    Args:
        potential: the model, the same in every process.
        optimizer: over its parameters.
        shares: one for each draw: this process's frames, on the model's device.
        losses: by task.
        optimizer_config: says where to clip.
        setting: what the schedule says.
        ranks: who trains together.
        room: what is known of memory from earlier steps.

    Raises:
        ResourceError: not enough memory, whatever was tried.
        TrainingError: a loss or the gradient is not finite; the weights are as before.
    """
    optimizer.zero_grad(set_to_none=True)
    frames = ranks.sum(torch.stack([carrying_frames(share.batch) for share in shares])).to(potential.device)
    room = room or Room(potential)

    def work() -> list[_Seen]:
        return [
            _in_pieces(potential, share, losses[share.task], setting.decay, (frames[k], len(shares)), room.pieces)
            for k, share in enumerate(shares)
        ]

    graphs = [share.batch.graph for share in shares if share.batch is not None]
    seen = room.run(work, optimizer.zero_grad, max(graphs, key=lambda graph: graph.n_edges)) if graphs else work()
    values = torch.stack([part.loss for part in seen]).tolist()
    parameters = [p for p in potential.parameters() if p.requires_grad]
    own = [p.grad for p in parameters if p.grad is not None]
    totals = ranks.sum_gradients(parameters, values)
    gradients = [p for p in parameters if p.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(gradients, optimizer_config.clip or math.inf).item()
    if not (math.isfinite(norm) and all(map(math.isfinite, totals))):
        finite_here = all(bool(torch.isfinite(grad).all()) for grad in own)
        blame = "; ".join(words for words in ranks.gathered(_blame(shares, seen, values, finite_here)) if words)
        raise TrainingError(
            f"step {setting.number}, {blame}. The last checkpoint is intact; check these frames with `lamella data lint`, "
            "or lower optimizer.lr."
        )
    set_learning_rate(optimizer, setting.lr)
    optimizer.step()
    return Outcome(tuple(value * len(shares) for value in values), norm, tuple(part.prediction for part in seen))


class _Seen(NamedTuple):
    """This process's part of a draw: its loss over the number of draws, its prediction, and the terms of the loss."""

    loss: Tensor
    prediction: Prediction | None
    terms: Mapping[str, Term]


def _in_pieces(
    potential: Potential, share: Share, config: LossConfig, decay: float, whole: tuple[Tensor, int], pieces: int
) -> _Seen:
    """:func:`_backward` of a share whose batch is cut where memory wants it."""
    if share.batch is None:
        return _backward(potential, share, config, decay, whole)
    parts = [_backward(potential, share._replace(batch=part), config, decay, whole) for part in cut(share.batch, pieces)]
    if len(parts) == 1:
        return parts[0]
    predictions = [part.prediction for part in parts if part.prediction is not None]
    terms: dict[str, Term] = {}
    for part in parts:
        for name, term in part.terms.items():
            known = terms.get(name)
            terms[name] = term if known is None else Term(known.total + term.total, known.frames + term.frames)
    loss = torch.stack([part.loss for part in parts]).sum()
    return _Seen(loss, Prediction(*(torch.cat(values) for values in zip(*predictions, strict=True))), terms)


def _backward(potential: Potential, share: Share, config: LossConfig, decay: float, whole: tuple[Tensor, int]) -> _Seen:
    """Add the gradient of a share's part of L to the parameters'.

    Args:
        potential: the model.
        share: of one draw.
        config: of the task.
        decay: of the schedule.
        whole: frames of all processes that carry each label in this draw, and the number of draws.
    """
    if share.batch is None:
        return _Seen(torch.zeros((), dtype=torch.float64, device=potential.device), None, {})
    frames, draws = whole
    prediction = potential(share.batch.graph, share.task, create_graph=True)
    terms = frame_terms(prediction, share.batch, config)
    loss = total_loss(terms, config, decay, frames) / draws
    if loss.requires_grad:
        loss.backward()
    detached = {name: Term(term.total.detach(), term.frames) for name, term in terms.items()}
    return _Seen(loss.detach().to(potential.device), Prediction(*(part.detach() for part in prediction)), detached)


def _blame(shares: Sequence[Share], seen: Sequence[_Seen], values: Sequence[float], finite: bool) -> str:
    """What is not finite here, and in which frames; empty where all is well here.

    Args:
        shares: of every draw.
        seen: what came of them.
        values: their losses.
        finite: whether this process's gradient is.
    """
    bad = [k for k, value in enumerate(values) if not math.isfinite(value)]
    what = "loss" if bad else "gradient of the loss"
    if not bad and not finite:
        bad = [k for k, share in enumerate(shares) if share.batch is not None]
    return "; ".join(_blamed(what, shares[k], seen[k], values[k]) for k in bad)


def _blamed(what: str, share: Share, seen: _Seen, value: float) -> str:
    terms = [name for name, term in seen.terms.items() if not torch.isfinite(term.total)]
    sources = share.batch.sources if share.batch is not None else ()
    shown = ", ".join(sources[:8]) + (f" and {len(sources) - 8} more" if len(sources) > 8 else "")
    said = f"{value}" if what == "loss" else "not finite"
    blamed = f" ({', '.join(terms)})" if terms else ""
    return f"task {share.task}: the {what} is {said}{blamed}, in the frames {shown}"
