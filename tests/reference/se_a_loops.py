"""DeepPot-SE by loops over atoms, neighbours and empty slots: nothing shared with the package but the weights.

Written from the DeepPot-SE paper (arXiv 1805.09003) and the exact form of deepmd-kit's implementation. Empty neighbour slots
are visited one by one. numpy vectors run over channels only. ``w`` is the dict of the model's weights (float64), ``c`` its
configuration.
"""

from __future__ import annotations

import math

import numpy as np

from reference.dpa3_loops import find_neighbours


def energy(potential, numbers, positions, cell, pbc, task=0):
    """Total energy (eV), atomic energies (n,) and node features (n, C) of one structure."""
    w = {name: value.detach().double().cpu().numpy() for name, value in potential.state_dict().items()}
    c = potential.config.backbone
    species = [potential.numbers.index(z) for z in numbers]
    neighbours = find_neighbours(positions, cell, pbc, c.cutoff)
    nodes = descriptors(w, c, potential.elements, species, neighbours)
    head = "heads.0." if potential.config.head.task_dim else f"heads.{task}."
    inputs = [np.concatenate([node, w["task_code"][task]]) for node in nodes]
    atomic = [
        fit(w, potential.config.head, f"{head}nets.{s}.", x) + w["baseline"][task][s]
        for x, s in zip(inputs, species, strict=True)
    ]
    return math.fsum(atomic), np.array(atomic), np.array(nodes)


def descriptors(w, c, elements, species, neighbours):
    """D_i = Xᵀ X[:, :axis] (C · axis, C major), X = 1/N Σ_j row_j ⊗ G(s_j), over all N slots, the empty ones too."""
    excluded = {pair for a, b in c.excluded_pairs for pair in ((a, b), (b, a))}
    slots = sum(c.sel.values())
    nodes = []
    for i, mine in zip(species, neighbours, strict=True):
        mean = w["backbone.environment.mean"][i]
        radial, angular = w["backbone.environment.std"][i]
        x = np.zeros((4, c.neurons[-1]))
        for b, element in enumerate(elements):
            net = f"backbone.nets.{b if c.one_sided else i + b * len(elements)}."
            vectors = [vector for j, vector in mine if species[j] == b]
            for vector in vectors:
                if (elements[i], element) in excluded:
                    continue  # its row is zero, and yet it fills a slot
                r = np.linalg.norm(vector)
                s = switch(r, c.switch_start, c.cutoff)
                near = r + c.protection
                row = np.array([(s / near - mean) / radial, *(s * vector / near**2 / angular)])
                x += np.outer(row, embed(w, c, net, row[0]))
            empty = np.array([(0.0 - mean) / radial, 0.0, 0.0, 0.0])
            term = np.outer(empty, embed(w, c, net, empty[0]))
            unfilled = c.sel[element] - len(vectors)
            for _ in range(abs(unfilled)):  # more neighbours than slots: taken away as often
                x += math.copysign(1.0, unfilled) * term
        x /= slots
        nodes.append(np.array([x[:, m] @ x[:, a] for m in range(c.neurons[-1]) for a in range(c.axis)]))
    return nodes


def switch(r, start, cutoff):
    """w(r): DPA-2 paper, Eq. 13."""
    u = min(max((r - start) / (cutoff - start), 0.0), 1.0)
    return u**3 * (-6.0 * u**2 + 15.0 * u - 10.0) + 1.0


def embed(w, c, net, s):
    """G(s): layers with shortcuts only."""
    x = np.array([s])
    for depth in range(len(c.neurons)):
        x = layer(w, f"{net}layers.{depth}", c.activation, x)
    return x


def fit(w, c, net, x):
    """Energy of one atom: hidden layers with shortcuts and learned steps, then a linear one."""
    for depth in range(len(c.hidden)):
        x = layer(w, f"{net}hidden.{depth}", c.activation, x)
    return float((x @ w[f"{net}out.weight"] + w[f"{net}out.bias"])[0])


def layer(w, name, kind, x):
    """act(x W + b) τ + [x], [x, x] or nothing, as the widths allow."""
    y = activate(kind, x @ w[f"{name}.weight"] + w[f"{name}.bias"])
    if len(y) in (len(x), 2 * len(x)):
        y = y * w.get(f"{name}.timestep", 1.0) + np.tile(x, len(y) // len(x))
    return y


def activate(kind, x):
    """Every activation of deepmd-kit, number by number."""
    name, _, threshold = kind.partition(":")
    return np.array([activate_number(name, float(threshold or 3.0), float(v)) for v in x])


def activate_number(name, threshold, v):
    sigma = 1.0 / (1.0 + math.exp(-v))
    if name in ("silut", "custom_silu"):
        at = 1.0 / (1.0 + math.exp(-threshold))
        slope = at + threshold * at * (1.0 - at)
        return v * sigma if v < threshold else math.tanh(slope * (v - threshold)) + threshold * at
    if name in ("gelu", "gelu_tf"):
        return 0.5 * v * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (v + 0.044715 * v**3)))
    return {
        "tanh": math.tanh(v),
        "relu": max(v, 0.0),
        "relu6": min(max(v, 0.0), 6.0),
        "softplus": math.log1p(math.exp(v)),
        "sigmoid": sigma,
        "silu": v * sigma,
        "linear": v,
        "none": v,
    }[name]
