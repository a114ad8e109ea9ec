"""DPA-3 by loops over atoms, neighbours and angles: nothing shared with the package but the weights.

Written from the DPA3 paper (arXiv 2506.01686; equation numbers below) and the exact form of deepmd-kit's implementation.
numpy vectors run over channels only. ``w`` is the dict of the model's weights (float64), ``c`` its configuration.
"""

from __future__ import annotations

import itertools
import math

import numpy as np


def energy(potential, numbers, positions, cell, pbc, task=0):
    """Total energy (eV), atomic energies (n,) and node features (n, C) of one structure."""
    w = {name: value.detach().double().cpu().numpy() for name, value in potential.state_dict().items()}
    c = potential.config.backbone
    species = [potential.numbers.index(z) for z in numbers]
    neighbours = find_neighbours(positions, cell, pbc, c.cutoff)
    nodes = backbone(w, c, species, neighbours)
    head = "heads.0." if potential.config.head.task_dim else f"heads.{task}."
    atomic = [fit(w, potential.config.head, head, node, w["task_code"][task]) for node in nodes]
    atomic = np.array([e + w["baseline"][task][s] for e, s in zip(atomic, species, strict=True)])
    return math.fsum(atomic), atomic, np.array(nodes)


def find_neighbours(positions, cell, pbc, cutoff):
    """neighbours[i] = list of (j, r_j + shift - r_i), every image within the cutoff, by brute force."""
    vectors = [np.array(cell[axis], dtype=float) for axis in range(3) if pbc[axis]]
    # |n| of an image within reach is at most reach times the length of the dual vector, whatever the skew
    reach = cutoff + np.ptp(positions, axis=0).sum()
    dual = np.linalg.pinv(np.array(vectors).reshape(-1, 3)).T
    counts = [math.ceil(reach * np.linalg.norm(row)) for row in dual]
    images = [
        sum((n * vector for n, vector in zip(steps, vectors, strict=True)), np.zeros(3))
        for steps in itertools.product(*(range(-m, m + 1) for m in counts))
    ]
    found = []
    for here in positions:
        mine = []
        for j, there in enumerate(positions):
            for image in images:
                vector = there + image - here
                if 1e-9 < np.linalg.norm(vector) < cutoff:
                    mine.append((j, vector))
        found.append(mine)
    return found


def switch(kind, r, start, cutoff):
    """s(r): Eq. 9 (exponential) or the polynomial of the DPA-2 paper, Eq. 4."""
    if kind == "exponential":
        return math.exp(-math.exp(20.0 * (min(r, cutoff) - start) / start))
    u = min(max((r - start) / (cutoff - start), 0.0), 1.0)
    return u**3 * (-6.0 * u**2 + 15.0 * u - 10.0) + 1.0


def activate(name, x):
    """The activations the configurations under test use."""
    x = np.asarray(x, dtype=float)
    if name == "tanh":
        return np.tanh(x)
    sigma = 1.0 / (1.0 + np.exp(-x))
    if name == "silu":
        return x * sigma
    threshold = float(name.split(":")[1])
    at = 1.0 / (1.0 + math.exp(-threshold))
    slope = at + threshold * at * (1.0 - at)
    return np.where(x < threshold, x * sigma, np.tanh(slope * (x - threshold)) + threshold * at)


def dense(w, name, x):
    """y = x W + b."""
    y = x @ w[f"{name}.weight"]
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def backbone(w, c, species, neighbours):
    """Node features after the last layer."""
    n_species, width = w["backbone.embedding.weight"].shape
    table = w["backbone.embedding.weight"] + w.get("backbone.embedding.bias", 0.0)
    if width == n_species:
        table = table + np.eye(n_species)
    if width == 2 * n_species:
        table = table + np.hstack([np.eye(n_species), np.eye(n_species)])
    node = [activate(c.activation, table[s]) for s in species]
    h, sw, edge, angle_sw, short = [], [], [], [], []
    for i, mine in enumerate(neighbours):
        radial, angular = w["backbone.environment.std"][species[i]]
        lengths = [np.linalg.norm(vector) for _, vector in mine]
        sw.append([switch(c.switch, r, c.switch_start, c.cutoff) for r in lengths])
        h.append([s * vector / r**2 / angular for (_, vector), r, s in zip(mine, lengths, sw[i], strict=True)])
        if c.edge_init == "distance":
            edge.append([dense(w, "backbone.edge_init", np.array([r])) for r in lengths])
        else:
            first = [np.array([s / r / radial]) for r, s in zip(lengths, sw[i], strict=True)]
            edge.append([activate(c.activation, dense(w, "backbone.edge_init", x)) for x in first])
        short.append([a for a, r in enumerate(lengths) if r < c.angle_cutoff])
        angle_sw.append([switch(c.switch, r, c.angle_switch_start, c.angle_cutoff) for r in lengths])
    angle = first_angles(w, c, neighbours, short) if c.update_angle else None
    for depth in range(c.layers):
        layer = Layer(w, c, f"backbone.layers.{depth}.", node, edge, angle, neighbours, h, sw, angle_sw, short)
        node, edge, angle = layer.update(last=depth == c.layers - 1)
    if c.concat_embedding:
        node = [np.concatenate([v, table[s]]) for v, s in zip(node, species, strict=True)]
    return node


def first_angles(w, c, neighbours, short):
    """a_ijk = cos θ / √π · W for every ordered pair of short edges of a centre, j = k too (Eq. 19)."""
    angle = []
    for i, mine in enumerate(neighbours):
        pairs = {}
        for j, k in itertools.product(short[i], repeat=2):
            a, b = mine[j][1], mine[k][1]
            cosine = (a @ b) / ((np.linalg.norm(a) + 1e-6) * (np.linalg.norm(b) + 1e-6)) * (1.0 - 1e-6)
            pairs[j, k] = dense(w, "backbone.angle_init", np.array([cosine / math.sqrt(math.pi)]))
        angle.append(pairs)
    return angle


class Layer:
    """One layer, every update from the layer's input (Eqs. 4-8, 10, 12)."""

    def __init__(self, w, c, name, node, edge, angle, neighbours, h, sw, angle_sw, short):
        self.w, self.c, self.name = w, c, name
        self.node, self.edge, self.angle = node, edge, angle
        self.neighbours, self.h, self.sw, self.angle_sw, self.short = neighbours, h, sw, angle_sw, short
        self.n_edge = c.edge_sel / c.sel_reduction if c.dynamic_sel else c.edge_sel
        self.n_angle = c.angle_sel / c.sel_reduction if c.dynamic_sel else c.angle_sel

    def net(self, name, x):
        return activate(self.c.activation, dense(self.w, self.name + name, x))

    def update(self, last):
        if self.c.sequential:
            return self.update_in_sequence()
        atoms = range(len(self.node))
        node = [self.new_node(i) for i in atoms]
        if last:
            return node, None, None
        edge = [[self.new_edge(i, j) for j in range(len(self.neighbours[i]))] for i in atoms]
        angle = None
        if self.c.update_angle:
            angle = [{pair: self.new_angle(i, *pair) for pair in self.angle[i]} for i in atoms]
        return node, edge, angle

    def update_in_sequence(self):
        """Edges by themselves, angles, edges by angles, nodes, each from what is newest."""
        atoms = range(len(self.node))

        def edges(update):
            return [[update(i, j) for j in range(len(self.neighbours[i]))] for i in atoms]

        self.edge = edges(lambda i, j: self.edge[i][j] + self.step("step_edge.0") * self.edge_self(i, j))
        self.angle = [{pair: self.new_angle(i, *pair) for pair in self.angle[i]} for i in atoms]
        self.edge = edges(lambda i, j: self.edge[i][j] + self.step("step_edge.1") * self.edge_from_angles(i, j))
        return [self.new_node(i) for i in atoms], self.edge, self.angle

    def step(self, name):
        return self.w[f"{self.name}{name}"]

    def combine(self, old, updates, steps):
        """Eq. 12 with the three styles of update."""
        if self.c.update_style == "res_residual":
            return old + sum(self.w[f"{self.name}{steps}.{n}"] * update for n, update in enumerate(updates))
        if self.c.update_style == "res_avg":
            return (old + sum(updates)) / math.sqrt(1 + len(updates))
        return old + sum(updates) / math.sqrt(len(updates))

    def new_node(self, i):
        """Self, symmetrised and message terms (Eqs. 4, 6, 13-16)."""
        mine = self.neighbours[i]
        width = len(self.node[i])
        symmetric = np.zeros(self.c.axis * (self.c.edge_dim + self.c.node_dim))
        if mine:
            symmetric = np.concatenate(
                [self.symmetrise(i, self.edge[i]), self.symmetrise(i, [self.node[j] for j, _ in mine])]
            )
        message = np.zeros(self.c.messages * width)
        for a, (j, _) in enumerate(mine):
            x = np.concatenate([self.node[i], self.node[j], self.edge[i][a]])
            message += self.net("node_edge", x) * self.sw[i][a]
        message /= self.n_edge
        chunks = [message[m * width : (m + 1) * width] for m in range(self.c.messages)]
        updates = [self.net("node_self", self.node[i]), self.net("node_sym", symmetric), *chunks]
        return self.combine(self.node[i], updates, "step_node")

    def symmetrise(self, i, features):
        """(X[:, :axis]ᵀ X)/3, X = N^(-1/2) Σ_j h_ij ⊗ x_j w_ij, flattened axis-major."""
        width = len(features[0])
        x = np.zeros((3, width))
        for feature, h, s in zip(features, self.h[i], self.sw[i], strict=True):
            x += np.outer(h, feature * s)
        x /= math.sqrt(self.n_edge)
        out = []
        for axis in range(self.c.axis):
            for channel in range(width):
                out.append((x[:, axis] @ x[:, channel]) / 3.0)
        return np.array(out)

    def new_edge(self, i, j):
        """Self term, and the sum over the angles that the edge receives from (Eqs. 5-7, 10)."""
        updates = [self.edge_self(i, j)]
        if self.c.update_angle:
            updates.append(self.edge_from_angles(i, j))
        return self.combine(self.edge[i][j], updates, "step_edge")

    def edge_self(self, i, j):
        neighbour = self.node[self.neighbours[i][j][0]]
        return self.net("edge_self", np.concatenate([self.node[i], neighbour, self.edge[i][j]]))

    def edge_from_angles(self, i, j):
        c, edge = self.c, self.edge[i][j]
        received = np.zeros(len(edge)) if c.smooth_edge_update else edge
        if j in self.short[i]:
            received = np.zeros(len(edge))
            for k in self.short[i]:
                weight = self.angle_sw[i][j] * self.angle_sw[i][k]
                received = received + self.net("edge_angle_1", self.angle_input(i, j, k)) * weight
            received = received / math.sqrt(self.n_angle)
        return self.net("edge_angle_2", received)

    def new_angle(self, i, j, k):
        return self.combine(self.angle[i][j, k], [self.net("angle_self", self.angle_input(i, j, k))], "step_angle")

    def angle_input(self, i, j, k):
        """[angle | centre | edge k | edge j], node and edges shrunk where asked for."""
        return np.concatenate([self.angle[i][j, k], self.small_node(i), self.small_edge(i, k), self.small_edge(i, j)])

    def small_node(self, i):
        c = self.c
        if not c.angle_compression:
            return self.node[i]
        if c.angle_compression_kind == "linear":
            return dense(self.w, self.name + "shrink_node", self.node[i])
        return self.node[i][: c.angle_dim // c.angle_compression]

    def small_edge(self, i, j):
        c = self.c
        if not c.angle_compression:
            return self.edge[i][j]
        if c.angle_compression_kind == "linear":
            return dense(self.w, self.name + "shrink_edge", self.edge[i][j])
        return self.edge[i][j][: c.angle_dim * c.angle_compression_edge // (2 * c.angle_compression)]


def fit(w, c, head, node, code):
    """Energy of one atom: hidden layers with shortcuts and learned steps, then a linear one (Eq. 3)."""
    x = np.concatenate([node, code])
    for depth in range(len(c.hidden)):
        name = f"{head}nets.0.hidden.{depth}"
        y = activate(c.activation, dense(w, name, x))
        if len(y) in (len(x), 2 * len(x)):
            y = y * w.get(f"{name}.timestep", 1.0) + np.tile(x, len(y) // len(x))
        x = y
    return float(dense(w, f"{head}nets.0.out", x)[0])
