"""Two-dimensional maps of representations: principal components, and t-SNE."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from lamella.errors import InputError
from lamella.use.atlas.config import AtlasConfig

__all__ = ["METHODS", "Map", "pca", "require_enough", "tsne"]

_REDUCED: Final = 50
"""t-SNE starts from at most so many principal components: what is beyond them is small, and distances cost less."""


@dataclass(frozen=True)
class Map:
    """Where each atom lies.

    Attributes:
        title: name of the method.
        points: (N, 2) float64, without unit.
        axes: what the axes are called.
    """

    title: str
    points: np.ndarray
    axes: tuple[str, str]


def pca(x_NC: np.ndarray, config: AtlasConfig) -> Map:
    """The two directions in which representations differ most; signs are fixed.

    Args:
        x_NC: representations; they are centred, and not scaled: a channel counts by how much it varies.
        config: not looked at.

    Raises:
        InputError: all representations are equal.
    """
    points, shares = _components(x_NC, 2)
    return Map("PCA", points, (f"PC 1 ({shares[0]:.0%} of the variance)", f"PC 2 ({shares[1]:.0%})"))


def tsne(x_NC: np.ndarray, config: AtlasConfig) -> Map:
    """t-SNE (L. van der Maaten, G. Hinton, J. Mach. Learn. Res. 9, 2579, 2008), as scikit-learn has it, from a PCA start.

    Neighbours stay neighbours; distances between clusters, and their sizes, mean little.

    Args:
        x_NC: representations.
        config: ``perplexity`` and ``seed`` are read.

    Raises:
        InputError: not more atoms than the perplexity; all representations are equal.
    """
    from sklearn.manifold import TSNE

    require_enough(len(x_NC), config)
    reduced, _ = _components(x_NC, _REDUCED)
    # the start is given, since scikit-learn's own divides by zero where a component vanishes
    start = (1e-4 * reduced[:, :2] / reduced[:, 0].std()).astype(np.float32)
    method = TSNE(2, perplexity=config.perplexity, init=start, random_state=config.seed, n_jobs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        points = method.fit_transform(reduced)
    return Map("t-SNE", points.astype(np.float64), ("t-SNE 1", "t-SNE 2"))


METHODS: Final[dict[str, Callable[[np.ndarray, AtlasConfig], Map]]] = {"tsne": tsne, "pca": pca}
"""Method by name."""


def require_enough(atoms: int, config: AtlasConfig) -> None:
    """Refuse what cannot be laid out, before anything is computed.

    Raises:
        InputError: not more atoms than t-SNE's perplexity, or a single atom.
    """
    if atoms < 2:
        raise InputError("there is one atom to show where a map needs two or more; give more data.")
    if "tsne" in config.methods and atoms <= config.perplexity:
        raise InputError(
            f"t-SNE needs more atoms than its perplexity of {config.perplexity:g}, and there are {atoms}; give more data, "
            f"a perplexity below {atoms}, or choose pca."
        )


def _components(x_NC: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, k) the leading principal components, at least two and at most ``count``, and their shares of the variance."""
    centred = x_NC - x_NC.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    total = float((s**2).sum())
    if total <= (1e-12 * np.abs(x_NC).max()) ** 2 * x_NC.size:
        raise InputError(
            f"all {len(x_NC)} atoms have the same representation, so there is no map of them: a perfect crystal of one "
            "element looks like that; give structures that differ."
        )
    u = u * np.sign(u[np.abs(u).argmax(axis=0), np.arange(len(s))])
    kept = u[:, :count] * s[:count]
    shares = s[:count] ** 2 / total
    missing = max(0, 2 - len(s))
    return np.pad(kept, ((0, 0), (0, missing))), np.pad(shares, (0, missing))
