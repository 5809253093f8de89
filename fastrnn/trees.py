"""Batches of trees: one flat array of parents, and the order in which a cell goes from the leaves to the roots."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fastrnn import checks
from fastrnn.memory import read_only


class Slots(NamedTuple):
    """Where the children of inner nodes are found: node m of those, counted in the computing order, has the slots
    first[m] .. first[m+1]-1."""

    first: np.ndarray  # (inner nodes + 1,) int64
    children: np.ndarray  # (slots,) int64: the node in a slot, -1 for none
    own: np.ndarray  # (N,) int64, in the computing order: the slot that a node is in, -1 for a root


class Trees:
    """A batch of trees of N nodes in all, numbered in any order.

    Parameters
    ----------
    parents : (N,) integers, each node's parent, -1 for a root
    positions : (N,) integers >= 0, which of its parent's children a node is; in the order of their numbers if None.
        Of a root it is not read.

    The computing order has the nodes by height, the leaves first: `order` (N,) names them, `place` (N,) is its inverse,
    and a height h is order[levels[h] : levels[h + 1]]. `roots` are the nodes without a parent. All of them are
    read-only: kernels go where they lead.

    Raises ValueError: `parents: expected at least one node, got none`, `parents: expected -1 <= parent < 4, got 9`,
    `parents: expected trees, got a cycle through node 3`, `positions: expected one child at each position, got two at
    position 0 of node 7`; TypeError: `parents: expected integers, got dtype float64`.
    Cost: N log(height) steps of NumPy.
    """

    def __init__(
        self, parents: Sequence[int] | np.ndarray, positions: Sequence[int] | np.ndarray | None = None
    ) -> None:
        self._parents = checks.parents("parents", parents)
        self._roots = np.flatnonzero(self._parents < 0)
        heights = _heights(self._parents)
        self._order = np.argsort(heights, kind="stable")
        self._place = np.empty_like(self._order)
        self._place[self._order] = np.arange(len(heights))
        self._levels = np.append(0, np.cumsum(np.bincount(heights)))
        if positions is None:
            self._positions = _occurrence(self._parents)
        else:
            self._positions = checks.positions("positions", positions, self._parents)
        self._slots: dict[int, Slots] = {}

    @property
    def parents(self) -> np.ndarray:
        """(N,) int64, each node's parent, -1 for a root."""
        return read_only(self._parents)

    @property
    def positions(self) -> np.ndarray:
        """(N,) int64, which of its parent's children a node is."""
        return read_only(self._positions)

    @property
    def roots(self) -> np.ndarray:
        """(trees,) int64, the nodes without a parent."""
        return read_only(self._roots)

    @property
    def order(self) -> np.ndarray:
        """(N,) int64, the nodes in the computing order."""
        return read_only(self._order)

    @property
    def place(self) -> np.ndarray:
        """(N,) int64, where each node is in the computing order."""
        return read_only(self._place)

    @property
    def levels(self) -> np.ndarray:
        """(levels + 1,) int64, where each height begins in the computing order, and N."""
        return read_only(self._levels)

    def __len__(self) -> int:
        return len(self.parents)

    def __repr__(self) -> str:
        return f"Trees({len(self)} nodes, {len(self._roots)} trees, {len(self._levels) - 1} levels)"

    @property
    def leaves(self) -> int:
        """The number of leaves."""
        return int(self._levels[1])

    def slots(self, children: int = 0) -> Slots:
        """A slot for each child, or with `children` as many for each inner node.

        Raises ValueError: `positions: expected 0 <= position < 2, the layer's children, got 2`.
        """
        return Slots(*map(read_only, self._own_slots(children)))

    @property
    def above(self) -> np.ndarray:
        """(N,) int64, in the computing order: a node's parent, counted among the inner nodes, -1 for a root."""
        return read_only(self._above)

    def followed(self, children: int, each: bool) -> tuple[np.ndarray, ...]:
        """The order, place, levels, slots and carry of fastrnn.kernels.forest.Forest, as kernels take them: what is
        read-only is another type to Numba, and compiled for again.

        each : whether every child has its own row of gradients, or all of a parent have one
        """
        slots = self._own_slots(children)
        carry = slots.own if each else self._above
        return self._order, self._place, self._levels, slots.first, slots.children, carry

    def _own_slots(self, children):
        children = checks.integer("children", children, 0)
        if children not in self._slots:
            self._slots[children] = self._dense(children) if children else self._sparse()
        return self._slots[children]

    @cached_property
    def _above(self):
        parents = self._parents[self._order]
        return np.where(parents < 0, -1, self._place[parents] - self.leaves)

    def _inner(self, nodes):
        """The parents of nodes, counted among the inner ones in the computing order."""
        return self._place[self._parents[nodes]] - self.leaves

    def _sparse(self):
        nodes = np.flatnonzero(self._parents >= 0)
        inner = self._inner(nodes)
        arranged = np.lexsort((self._positions[nodes], inner))
        children, counts = nodes[arranged], np.bincount(inner, minlength=len(self) - self.leaves)
        return Slots(np.append(0, np.cumsum(counts)), children, self._own(children, np.arange(len(children))))

    def _dense(self, K):
        checks.below("positions", self._positions, K, f"0 <= position < {K}, the layer's children")
        nodes, inner = np.flatnonzero(self._parents >= 0), len(self) - self.leaves
        checks.addressable("children", (inner, K), nodes.itemsize)
        slots = self._inner(nodes) * K + self._positions[nodes]
        children = np.full(inner * K, -1)
        children[slots] = nodes
        return Slots(np.arange(inner + 1) * K, children, self._own(nodes, slots))

    def _own(self, nodes, slots):
        own = np.full(len(self), -1)
        own[self._place[nodes]] = slots
        return own

    @classmethod
    def chains(cls, lengths: Sequence[int] | np.ndarray) -> "Trees":
        """Sequences as trees, one after another as in a Packed: each step is the only child of the next.

        lengths : (B,) integers >= 0. Raises ValueError: `lengths: expected 0 <= length, got -1`.
        """
        lengths = checks.counts("lengths", lengths, "0 <= length")
        checks.addressable("lengths", (int(lengths.sum(dtype=np.longdouble)),), lengths.itemsize)
        parents = np.arange(1, lengths.sum() + 1)
        parents[np.cumsum(lengths)[lengths > 0] - 1] = -1
        return cls(parents)

    @classmethod
    def from_nested(cls, trees: Iterable[Any]) -> tuple["Trees", list[Any]]:
        """Trees written as nested tuples or lists, `[(("not", "good"), "."), "fine"]`, and what each node stands for.

        A tuple or a list is an inner node, all else a leaf. The values are N: the leaf itself, None for an inner node.
        Nodes are numbered as they are written, a parent before its children.
        """
        checks.iterable("trees", trees)
        parents: list[int] = []
        values: list[Any] = []
        waiting = [(tree, -1) for tree in reversed(list(trees))]
        while waiting:
            tree, parent = waiting.pop()
            nested = isinstance(tree, (tuple, list))
            waiting += [(child, len(parents)) for child in reversed(tree)] if nested else []
            parents.append(parent)
            values.append(None if nested else tree)
        return cls(parents), values


def _heights(parents):
    """Steps to the farthest leaf below each node: ancestors 1, 2, 4, ... steps up learn how far their nodes reach."""
    heights, ancestor, distance = np.zeros_like(parents), parents, 1
    while len(nodes := np.flatnonzero(ancestor >= 0)):
        checks.no_cycle("parents", ancestor[nodes], distance, len(parents))
        reach = heights[nodes] + distance
        np.maximum.at(heights, ancestor[nodes], reach)
        above = np.full_like(parents, -1)
        above[nodes] = ancestor[ancestor[nodes]]
        ancestor, distance = above, 2 * distance
    return heights


def _occurrence(parents):
    """Which of its parent's children each node is, by number."""
    arranged = np.argsort(parents, kind="stable")
    ranked = parents[arranged]
    positions = np.empty_like(parents)
    positions[arranged] = np.arange(len(parents)) - np.searchsorted(ranked, ranked)
    positions[parents < 0] = 0
    return positions
