"""DPA-2 by loops over atoms, neighbours and pairs of neighbours: nothing shared with the package but the weights.

Written from the DPA-2 paper (arXiv 2312.15492; equation numbers below) and the exact form of deepmd-kit's implementation.
numpy vectors run over channels only. ``w`` is the dict of the model's weights (float64), ``c`` its configuration. What a sum
over slots owes to empty slots is written as (sel - number of neighbours) times the term of one empty slot.
"""

from __future__ import annotations

import math

import numpy as np

from reference.dpa1_loops import embed, norm, type_vectors
from reference.dpa3_loops import activate, dense, find_neighbours, fit, switch

EMPTY = math.exp(-20.0)  # what an empty slot adds to the denominator of a smooth softmax (Eqs. 35, 36)


def energy(potential, numbers, positions, cell, pbc, task=0):
    """Total energy (eV), atomic energies (n,) and node features (n, C) of one structure."""
    w = {name: value.detach().double().cpu().numpy() for name, value in potential.state_dict().items()}
    c = potential.config.backbone
    species = [potential.numbers.index(z) for z in numbers]
    nodes = backbone(w, c, potential.elements, species, find_neighbours(positions, cell, pbc, c.cutoff))
    head = "heads.0." if potential.config.head.task_dim else f"heads.{task}."
    atomic = [fit(w, potential.config.head, head, node, w["task_code"][task]) for node in nodes]
    atomic = np.array([e + w["baseline"][task][s] for e, s in zip(atomic, species, strict=True)])
    return math.fsum(atomic), atomic, np.array(nodes)


def backbone(w, c, elements, species, neighbours):
    """Node features after the last layer (Eqs. 7-10)."""
    table = type_vectors(w, c, elements)
    excluded = {(elements.index(a), elements.index(b)) for a, b in c.excluded_pairs}
    excluded |= {(b, a) for a, b in excluded}
    atoms = range(len(species))
    rows = [
        [Row(w, "backbone.repinit.", c.repinit, c, species, excluded, i, *edge) for edge in neighbours[i]] for i in atoms
    ]
    node = [repinit(w, c, table, species, i, rows[i]) for i in atoms]
    if c.three_body is not None:
        name = "backbone.three_body."
        rows = [
            [Row(w, name, c.three_body, c, species, excluded, i, *e) for e in near(neighbours[i], c.three_body)]
            for i in atoms
        ]
        node = [np.concatenate([node[i], three_body(w, c, table, species, rows[i])]) for i in atoms]
    if "backbone.project.weight" in w:
        node = [dense(w, "backbone.project", x) for x in node]
    if c.add_embedding:
        node = [x + dense(w, "backbone.project_embedding", table[s]) for x, s in zip(node, species, strict=True)]
    name = "backbone.repformer."
    rows = [
        [Row(w, name, c.repformer, c, species, excluded, i, *e) for e in near(neighbours[i], c.repformer)] for i in atoms
    ]
    rows = [[row for row in mine if row.keep] for mine in rows]  # here an excluded pair is an empty slot
    node = repformer(w, c, node, rows)
    if c.concat_embedding:
        node = [np.concatenate([x, table[s]]) for x, s in zip(node, species, strict=True)]
    return node


def near(mine, part):
    return [(j, vector) for j, vector in mine if np.linalg.norm(vector) < part.cutoff]


class Row:
    """One row of the environment matrix (Eqs. 11-15), normalised by the statistics of the centre's element."""

    def __init__(self, w, name, part, c, species, excluded, i, j, vector):
        mean = w[name + "environment.mean"][species[i]]
        radial, angular = w[name + "environment.std"][species[i]]
        self.j, self.vector, self.r = j, vector, np.linalg.norm(vector)
        self.keep = (species[i], species[j]) not in excluded
        guarded = self.r + c.protection
        self.w = switch("polynomial", self.r, part.switch_start, part.cutoff) * self.keep
        self.s = (self.w / guarded - mean) / radial * self.keep
        self.h = self.w * vector / guarded**2 / angular


def repinit(w, c, table, species, i, rows):
    """symm of the embedded neighbours (Eqs. 16-20); the environment's switch serves as w there."""
    part, width = c.repinit, c.repinit.neurons[-1]
    x = np.zeros((4, width))
    for row in rows:
        environment = np.array([row.s, *row.h])
        x += np.outer(environment, embedded(w, c, part, row.s, table[species[row.j]], table[species[i]], row.w))
    if not part.zero_mean:  # stripped and smooth, w = 0: an empty slot's element has no say; otherwise there is one alone
        mean = w["backbone.repinit.environment.mean"][species[i]]
        empty = -mean / w["backbone.repinit.environment.std"][species[i]][0]
        x[0] += (part.sel - len(rows)) * empty * embedded(w, c, part, empty, table[0], table[species[i]], 0.0)
    x /= part.sel
    return np.array([x[:, m] @ x[:, a] for m in range(width) for a in range(part.axis)])


def embedded(w, c, part, s, neighbour, centre, switched):
    """g^rt of one neighbour (Eq. 16): types beside s, or a factor 1 + G_t beside G_s."""
    types = neighbour if part.one_sided else np.concatenate([neighbour, centre])
    if part.embedding_input == "concat":
        return embed(w, "backbone.repinit.neighbors.net", np.concatenate([[s], types]), part.activation)
    factor = embed(w, "backbone.repinit.neighbors.type_net", types, part.activation) * (switched if c.smooth else 1.0)
    return embed(w, "backbone.repinit.neighbors.net", np.array([s]), part.activation) * (1.0 + factor)


def three_body(w, c, table, species, rows):
    """Mean over ordered pairs of neighbours of c_jk G(c_jk, types), c_jk = h_j · h_k; j = k counts."""
    part, act = c.three_body, c.repinit.activation
    out = np.zeros(part.neurons[-1])
    for row_j in rows:
        for row_k in rows:
            cosine = row_j.h @ row_k.h
            types = np.concatenate([table[species[row_j.j]], table[species[row_k.j]]])
            if c.repinit.embedding_input == "concat":
                g = embed(w, "backbone.three_body.pairs.net", np.concatenate([[cosine], types]), act)
            else:
                factor = embed(w, "backbone.three_body.pairs.type_net", types, act) * (
                    row_j.w * row_k.w if c.smooth else 1.0
                )
                g = embed(w, "backbone.three_body.pairs.net", np.array([cosine]), act) * (1.0 + factor)
            out += cosine * g
    return out / part.sel**2


def repformer(w, c, node, rows):
    """All layers (Eq. 10), from the projected repinit features."""
    part = c.repformer
    node = [activate(part.activation, x) for x in node]
    pair, h = [], []
    for mine in rows:
        first = [row.r / part.cutoff if part.direct_distance else row.s for row in mine]
        pair.append([activate(part.activation, dense(w, "backbone.repformer.pair_init", np.array([x]))) for x in first])
        h.append([row.vector / part.cutoff if part.direct_distance else row.h for row in mine])
    for depth in range(part.layers):
        layer = Layer(w, c, f"backbone.repformer.layers.{depth}.", node, pair, h, rows)
        node, pair, h = layer.update(last=depth == part.layers - 1)
    return node


class Layer:
    """One repformer layer, every update from the layer's input (Eqs. 24-33)."""

    def __init__(self, w, c, name, node, pair, h, rows):
        self.w, self.c, self.smooth, self.name = w, c.repformer, c.smooth, name
        self.node, self.pair, self.h, self.rows = node, pair, h, rows

    def dense(self, name, x):
        return dense(self.w, self.name + name, x)

    def act(self, x):
        return activate(self.c.activation, x)

    def weight(self, row):
        """What a neighbour counts in a sum: its switch, or 1 where nothing is smooth."""
        return row.w if self.smooth else 1.0

    def norm(self, i):
        """N^m of Eqs. 19 and 25."""
        return self.c.sel if self.smooth else 1e-4 + len(self.rows[i])

    def update(self, last):
        atoms = range(len(self.node))
        node = [self.new_node(i) for i in atoms]
        if last:
            return node, self.pair, self.h
        pairs, vectors = [], []
        for i in atoms:
            maps = self.pair_map(i) if self.c.attention or self.c.update_vectors else None
            pairs.append([self.new_pair(i, j, maps) for j in range(len(self.rows[i]))])
            vectors.append([self.new_vector(i, j, maps) for j in range(len(self.rows[i]))])
        return node, pairs, vectors

    def combine(self, old, updates, steps):
        """Sums of the three styles of update; Eqs. 24, 29, 33 are the average."""
        if self.c.update_style == "res_residual":
            return old + sum(self.w[f"{self.name}{steps}.{n}"] * update for n, update in enumerate(updates))
        if self.c.update_style == "res_avg":
            return (old + sum(updates)) / math.sqrt(1 + len(updates))
        return old + sum(updates) / math.sqrt(len(updates)) if updates else old

    def new_node(self, i):
        """Eqs. 24 and 25, with the released model's two terms outside the concatenation."""
        c, updates = self.c, []
        if c.separate_self:
            updates.append(self.act(self.dense("atoms.own", self.node[i])))
        if c.conv and c.separate_conv:
            updates.append(self.conv(i))
        parts = [] if c.separate_self else [self.node[i]]
        if c.conv and not c.separate_conv:
            parts.append(self.conv(i))
        if c.sym_g:
            parts.append(self.symmetrise(i, self.pair[i], c.pair_dim))
        if c.sym_f:
            parts.append(self.symmetrise(i, [self.node[row.j] for row in self.rows[i]], c.node_dim))
        updates.append(self.act(self.dense("atoms.mix", np.concatenate(parts) if parts else np.zeros(0))))
        if c.local_attention:
            updates.append(self.local_attention(i))
        return self.combine(self.node[i], updates, "atoms.steps")

    def conv(self, i):
        """(1/N) Σ_j w g ⊙ f_j, in the space of the pairs (paper) or of the atoms (released)."""
        total = np.zeros(self.c.node_dim if self.c.separate_conv else self.c.pair_dim)
        for row, pair in zip(self.rows[i], self.pair[i], strict=True):
            if self.c.separate_conv:
                total += self.weight(row) * self.node[row.j] * self.dense("atoms.conv", pair)
            else:
                total += self.weight(row) * self.dense("atoms.conv", self.node[row.j]) * pair
        return total / self.norm(i)

    def symmetrise(self, i, features, width):
        """(X[:, :axis]ᵀ X)/3, X = Σ_j h_ij ⊗ x_j w_ij over N or √N (Eqs. 18-20), flattened axis-major."""
        x = np.zeros((3, width))
        for feature, h, row in zip(features, self.h[i], self.rows[i], strict=True):
            x += np.outer(h, feature * self.weight(row))
        if self.c.sqrt_norm:
            x /= math.sqrt(self.c.sel) if self.smooth else 1e-4 + math.sqrt(len(self.rows[i]))
        else:
            x /= self.norm(i)
        return np.array([(x[:, a] @ x[:, k]) / 3.0 for a in range(self.c.axis) for k in range(width)])

    def softmax(self, logits, weights):
        """Eqs. 34-36 of one row of a map: ``weights`` are w_ij, or w_ij w_ik."""
        if not self.smooth:
            total = sum(math.exp(x) for x in logits)
            return [math.exp(x) / total for x in logits]
        raised = [math.exp((x + 20.0) * u - 20.0) for x, u in zip(logits, weights, strict=True)]
        total = sum(raised) + (self.c.sel - len(raised)) * EMPTY
        return [x / total * u for x, u in zip(raised, weights, strict=True)]

    def local_attention(self, i):
        """Eqs. 26-28. Queries, keys and values are (channel, head), but their sum is flattened head by head."""
        c, rows = self.c, self.rows[i]
        query = self.dense("atoms.local.query", self.node[i]).reshape(c.local_attention_dim, c.local_attention_heads)
        out = np.zeros((c.local_attention_heads, c.node_dim))
        both = [self.dense("atoms.local.key_value", self.node[row.j]).reshape(-1, c.local_attention_heads) for row in rows]
        for head in range(c.local_attention_heads):
            logits = [query[:, head] @ kv[: len(query), head] / math.sqrt(len(query)) for kv in both]
            for share, kv in zip(self.softmax(logits, [row.w for row in rows]), both, strict=True):
                out[head] += share * kv[len(query) :, head]
        return self.dense("atoms.local.heads", out.reshape(-1))

    def pair_map(self, i):
        """maps[head][j][k], Eqs. 31 and 32, times h_j · h_k/√3 as in the released model."""
        c, rows, h = self.c, self.rows[i], self.h[i]
        both = [self.dense("pairs.map.query_key", g).reshape(c.attention_dim, 2 * c.attention_heads) for g in self.pair[i]]
        maps = []
        for head in range(c.attention_heads):
            of_head = []
            for j, query in enumerate(both):
                logits = [query[:, head] @ key[:, c.attention_heads + head] / math.sqrt(c.attention_dim) for key in both]
                if c.gate:
                    logits = [x * (h[j] @ h[k]) for k, x in enumerate(logits)]
                shares = self.softmax(logits, [rows[j].w * row.w for row in rows])
                of_head.append([x * (h[j] @ h[k]) / math.sqrt(3.0) for k, x in enumerate(shares)])
            maps.append(of_head)
        return maps

    def new_pair(self, i, j, maps):
        """Eq. 29."""
        c, pair, row = self.c, self.pair[i][j], self.rows[i][j]
        updates = [self.act(self.dense("pairs.own", pair))]
        if c.prod_f:
            updates.append(self.dense("pairs.product", self.node[i] * self.node[row.j] * self.weight(row)))
        if c.attention:
            out = np.zeros((c.pair_dim, c.attention_heads))
            for k, other in enumerate(self.pair[i]):
                value = self.dense("pairs.value.value", other).reshape(c.pair_dim, c.attention_heads)
                for head in range(c.attention_heads):
                    out[:, head] += maps[head][j][k] * value[:, head]
            updates.append(
                norm(self.w, self.name + "pairs.norm", self.dense("pairs.value.heads", out.reshape(-1)), c.norm_eps)
            )
        return self.combine(pair, updates, "pairs.steps")

    def new_vector(self, i, j, maps):
        """Eq. 33."""
        if not self.c.update_vectors:
            return self.h[i][j]
        heads = np.zeros((3, self.c.attention_heads))
        for head in range(self.c.attention_heads):
            for k, other in enumerate(self.h[i]):
                heads[:, head] += maps[head][j][k] * other
        return self.combine(self.h[i][j], [self.dense("pairs.vector", heads)[:, 0]], "pairs.vector_steps")
