"""DPA-1 by loops over atoms, neighbours and empty slots: nothing shared with the package but the weights.

Written from the DPA-1 paper (arXiv 2208.08236), the DPA-2 paper's smooth softmax (Eq. 36) and the exact form of deepmd-kit's
implementation. Empty neighbour slots are visited one by one, as deepmd-kit does; where there are more neighbours than slots,
they are taken away as often. numpy vectors run over channels only. ``w`` is the dict of the model's weights (float64), ``c``
its configuration.
"""

from __future__ import annotations

import math

import numpy as np

from reference.dpa3_loops import activate, dense, find_neighbours, fit, switch


def energy(potential, numbers, positions, cell, pbc, task=0):
    """Total energy (eV), atomic energies (n,) and node features (n, C) of one structure."""
    w = {name: value.detach().double().cpu().numpy() for name, value in potential.state_dict().items()}
    c = potential.config.backbone
    species = [potential.numbers.index(z) for z in numbers]
    neighbours = find_neighbours(positions, cell, pbc, c.cutoff)
    table = type_vectors(w, c, potential.elements)
    excluded = {pair for a, b in c.excluded_pairs for pair in ((a, b), (b, a))}
    nodes = []
    for i, mine in zip(species, neighbours, strict=True):
        seen = [(potential.elements[i], potential.elements[species[j]]) not in excluded for j, _ in mine]
        centre = Centre(w, c, i, [species[j] for j, _ in mine], [vector for _, vector in mine], seen, table)
        node = centre.descriptor()
        nodes.append(np.concatenate([node, table[i]]) if c.concat_embedding else node)
    head = potential.config.head
    name = "heads.0." if head.task_dim else f"heads.{task}."
    atomic = [fit(w, head, name, node, w["task_code"][task]) for node in nodes]
    atomic = np.array([e + w["baseline"][task][s] for e, s in zip(atomic, species, strict=True)])
    return math.fsum(atomic), atomic, np.array(nodes)


def type_vectors(w, c, elements):
    """One vector per element: one-hot (or electronic configuration) times weight, bias, shortcut where widths agree."""
    weight = w["backbone.embedding.weight"]
    inputs = [configuration(symbol) for symbol in elements] if c.electron_embedding else np.eye(len(elements))
    vectors = []
    for x in inputs:
        y = x @ weight + w.get("backbone.embedding.bias", 0.0)
        if len(y) in (len(x), 2 * len(x)):
            y = y + np.tile(x, len(y) // len(x))
        vectors.append(y)
    return vectors


def configuration(symbol):
    """Spin orbitals of the few elements under test, by hand: 1s 2s 2px 2py 2pz, the rest empty, two entries each."""
    occupied = {"H": "1s1", "C": "1s2 2s2 2p2", "N": "1s2 2s2 2p3", "O": "1s2 2s2 2p4"}[symbol]
    x = np.full(118, -1.0)
    for shell in occupied.split():
        first, orbitals = {"1s": (0, 1), "2s": (1, 1), "2p": (2, 3)}[shell[:2]]
        electrons = int(shell[2:])
        for n in range(electrons):  # one in each orbital first; the filled ones are listed first
            pairs = max(electrons - orbitals, 0)
            orbital, spin = (n // 2, n % 2) if n < 2 * pairs else (n - pairs, 1)
            x[2 * (first + orbital) + spin] = 1.0
    return x / math.sqrt(118)


def embed(w, name, x, activation):
    """Layers with shortcuts x or [x, x], each times a learned step where there is one."""
    depth = 0
    while f"{name}.layers.{depth}.weight" in w:
        layer = f"{name}.layers.{depth}"
        y = activate(activation, dense(w, layer, x))
        if len(y) in (len(x), 2 * len(x)):
            y = y * w.get(f"{layer}.timestep", 1.0) + np.tile(x, len(y) // len(x))
        x, depth = y, depth + 1
    return x


def norm(w, name, x, eps):
    """LayerNorm with the biased variance."""
    return (x - x.mean()) / math.sqrt(x.var() + eps) * w[f"{name}.weight"] + w[f"{name}.bias"]


def unit(x):
    """x/|x|, shorter than 1 where |x| < 10⁻¹²."""
    return x / max(np.linalg.norm(x), 1e-12)


class Centre:
    """One atom with its neighbours.

    A slot is (row of the environment matrix, switch, G, filled), an empty one a copy of ``self.empty``.
    """

    def __init__(self, w, c, species, kinds, vectors, seen, table):
        self.w, self.c = w, c
        mean = w["backbone.environment.mean"][species]
        radial, angular = w["backbone.environment.std"][species]
        self.rows, self.switches, self.embedded, self.filled = [], [], [], seen
        self.higher, self.directions = [], []
        for kind, vector, there in zip(kinds, vectors, seen, strict=True):
            r = np.linalg.norm(vector)
            s = switch("polynomial", r, c.switch_start, c.cutoff) if there else 0.0
            near = r + c.protection
            row = np.array([(s / near - mean) / radial, *(s * vector / near**2 / angular)])
            self.rows.append(row if there else np.zeros(4))
            self.switches.append(s)
            self.higher.append(s / near / radial)
            self.directions.append(vector / near)
            types = table[kind] if c.one_sided else np.concatenate([table[kind], table[species]])
            self.embedded.append(self.embedding(self.rows[-1][0], types, s))
        self.empty_row = np.array([(0.0 - mean) / radial, 0.0, 0.0, 0.0])
        # deepmd-kit's choice, type 0, is the only one there is, or is switched off, or multiplies a row of zeros
        types = table[0] if c.one_sided else np.concatenate([table[0], table[species]])
        self.empty = self.embedding(self.empty_row[0], types, 0.0)
        self.unfilled = c.sel - len(kinds)

    def embedding(self, s, types, w):
        c = self.c
        if c.embedding_input == "concat":
            return embed(self.w, "backbone.neighbors.net", np.array([s, *types]), c.activation)
        radial = embed(self.w, "backbone.neighbors.net", np.array([s]), c.activation)
        factor = embed(self.w, "backbone.neighbors.type_net", types, c.activation)
        return radial * (1.0 + factor * (w if c.smooth else 1.0))

    def descriptor(self):
        """Attention, then X = 1/N Σ row ⊗ G over all N slots and Xᵀ X[:, :axis], flattened channel by channel.

        What higher degrees add to Xᵀ X is a sum over pairs of neighbours, with no spherical harmonics in it.
        """
        for layer in range(self.c.attention_layers):
            name = f"backbone.attention.{layer}."
            attended = [self.attend(name, j) for j in range(len(self.rows))]
            nothing = np.zeros(self.c.attention_dim)
            self.embedded = [self.update(name, g, o) for g, o in zip(self.embedded, attended, strict=True)]
            self.empty = self.update(name, self.empty, nothing)
        x = np.zeros((4, len(self.empty)))
        for row, g in zip(self.rows, self.embedded, strict=True):
            x += np.outer(row, g)
        for _ in range(abs(self.unfilled)):
            x += math.copysign(1.0, self.unfilled) * np.outer(self.empty_row, self.empty)
        x /= self.c.sel
        products = x.T @ x[:, : self.c.axis]
        for degree in range(2, self.c.max_degree + 1):
            gain = self.w["backbone.degree_gain"][degree - 2] ** 2
            products += gain * self.products_of_degree(degree) / self.c.sel**2
        return products.flatten()

    def products_of_degree(self, degree):
        """Σ_jk a_j a_k (|u_j| |u_k|)^l P_l(cos) G_j ⊗ G_k[:axis]."""
        legendre = np.polynomial.Legendre.basis(degree)
        total = np.zeros((len(self.empty), self.c.axis))
        for a, u, g in zip(self.higher, self.directions, self.embedded, strict=True):
            for b, v, h in zip(self.higher, self.directions, self.embedded, strict=True):
                lengths = np.linalg.norm(u) * np.linalg.norm(v)
                total += a * b * lengths**degree * legendre(u @ v / lengths) * np.outer(g, h[: self.c.axis])
        return total

    def update(self, name, g, attended):
        return norm(self.w, f"{name}norm", g + dense(self.w, f"{name}out_proj", attended), self.c.norm_eps)

    def project(self, name, g):
        q, k, v = np.split(dense(self.w, f"{name}in_proj", g), 3)
        return (unit(q), unit(k), unit(v)) if self.c.normalize else (q, k, v)

    def attend(self, name, j):
        """Σ_k A_jk v_k for neighbour j: softmax over all slots k, gated by switches and by r̂_j · r̂_k."""
        c = self.c
        scale = 1.0 / math.sqrt(c.attention_dim * c.scaling_factor) if c.temperature is None else c.temperature
        out = np.zeros(c.attention_dim)
        if not self.filled[j]:
            return out
        q = self.project(name, self.embedded[j])[0]
        total = 0.0
        for k in range(len(self.rows)):
            _, key, value = self.project(name, self.embedded[k])
            logit, gate = scale * (q @ key), 1.0
            if c.smooth:
                gate = self.switches[j] * self.switches[k]
                logit = (logit + 20.0) * gate - 20.0
            elif not self.filled[k]:
                continue
            total += math.exp(logit)
            if c.attention_dot:
                gate *= unit(self.rows[j][1:]) @ unit(self.rows[k][1:])
            out += math.exp(logit) * gate * value
        for _ in range(abs(self.unfilled) if c.smooth else 0):
            total += math.copysign(math.exp(-20.0), self.unfilled)
        return out / total
