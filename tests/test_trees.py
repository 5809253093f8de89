"""Batches of trees: parents, positions, heights, the computing order, and every error."""

import numpy as np
import pytest
from forests import forests
from hypothesis import given

from fastrnn import Trees
from fastrnn.trees import Slots


def heights_by_recursion(parents):
    def height(node):
        return max((1 + height(child) for child in np.flatnonzero(parents == node)), default=0)

    return np.array([height(node) for node in range(len(parents))])


@given(forests())
def test_levels_are_heights(forest):
    parents, positions = forest
    trees, heights = Trees(parents, positions), heights_by_recursion(parents)
    np.testing.assert_array_equal(np.repeat(np.arange(len(trees.levels) - 1), np.diff(trees.levels)), np.sort(heights))
    np.testing.assert_array_equal(trees.order, np.argsort(heights, kind="stable"))
    np.testing.assert_array_equal(trees.order[trees.place], np.arange(len(trees)))
    np.testing.assert_array_equal(trees.roots, np.flatnonzero(parents == -1))
    assert trees.leaves == (heights == 0).sum()


@given(forests())
def test_slots_hold_the_children_in_their_places(forest):
    parents, positions = forest
    trees = Trees(parents, positions)
    for K, slots in ((0, trees.slots()), (3, trees.slots(3))):
        for m, node in enumerate(trees.order[trees.leaves :]):
            children = np.flatnonzero(parents == node)
            wanted = children[np.argsort(positions[children])]
            if K:
                own = np.full(K, -1)
                own[positions[children]] = children
                wanted = own
            np.testing.assert_array_equal(slots.children[slots.first[m] : slots.first[m + 1]], wanted)
        for place, node in enumerate(trees.order):
            own = slots.own[place]
            assert (own < 0) if parents[node] < 0 else slots.children[own] == node
    for place, node in enumerate(trees.order):
        above = trees.above[place]
        assert (above < 0) if parents[node] < 0 else trees.order[trees.leaves + above] == parents[node]
    assert isinstance(trees.slots(3), Slots)
    assert np.shares_memory(trees.slots(3).own, trees.slots(3).own)


def test_positions_follow_the_numbers():
    trees = Trees([4, -1, 4, 1, -1, 4])
    np.testing.assert_array_equal(trees.positions, [0, 0, 1, 0, 0, 2])
    np.testing.assert_array_equal(trees.slots().children, [3, 0, 2, 5])


def test_chains():
    trees = Trees.chains([3, 0, 1, 2])
    np.testing.assert_array_equal(trees.parents, [1, 2, -1, -1, 5, -1])
    np.testing.assert_array_equal(trees.roots, [2, 3, 5])
    np.testing.assert_array_equal(trees.levels, [0, 3, 5, 6])
    assert Trees.chains([5000]).levels[-2] == 4999


def test_nested():
    trees, values = Trees.from_nested([(("not", "good"), ["."]), "fine", ()])
    np.testing.assert_array_equal(trees.parents, [-1, 0, 1, 1, 0, 4, -1, -1])
    np.testing.assert_array_equal(trees.positions, [0, 0, 0, 1, 1, 0, 0, 0])
    assert values == [None, None, "not", "good", None, ".", "fine", None]
    assert repr(trees) == "Trees(8 nodes, 3 trees, 3 levels)"


def test_deeply_nested():
    tree = "leaf"
    for _ in range(5000):
        tree = (tree,)
    assert len(Trees.from_nested([tree])[0].levels) == 5002


def test_the_arguments_stay_the_callers():
    parents, positions = np.array([-1, 0, 0]), np.array([7, 1, 0])
    trees = Trees(parents, positions)
    parents[:], positions[:] = -1, 5
    np.testing.assert_array_equal(trees.parents, [-1, 0, 0])
    np.testing.assert_array_equal(trees.positions, [0, 1, 0])


ERRORS = {
    "parents: expected at least one node, got none": lambda: Trees([]),
    "parents: expected at least one node, got none ": lambda: Trees.chains([0, 0]),
    "parents: expected -1 <= parent < 3, got 3": lambda: Trees([-1, 0, 3]),
    "parents: expected -1 <= parent < 3, got -2": lambda: Trees([-2, 0, 0]),
    "parents: expected trees, got a cycle through node 0": lambda: Trees([0]),
    "parents: expected trees, got a cycle through node 3": lambda: Trees([-1, 0, 3, 5, 3, 4, 0, 2]),
    "parents: expected shape (N,) = (any,), got (1, 2)": lambda: Trees([[-1, 0]]),
    "positions: expected shape (N,) = (2,), got (3,)": lambda: Trees([-1, 0], [0, 0, 0]),
    "positions: expected 0 <= position, got -1": lambda: Trees([-1, 0], [0, -1]),
    "positions: expected one child at each position, got two at position 2 of node 1": lambda: Trees(
        [-1, 0, 1, 1], [0, 0, 2, 2]
    ),
    "positions: expected 0 <= position < 2, the layer's children, got 2": lambda: Trees([-1, 0, 0, 0]).slots(2),
    "lengths: expected 0 <= length, got -1": lambda: Trees.chains([2, -1]),
}


@pytest.mark.parametrize("message", ERRORS)
def test_errors(message):
    with pytest.raises(ValueError) as caught:
        ERRORS[message]()
    assert str(caught.value) == message.strip()


@pytest.mark.parametrize("arguments", [([-1.0, 0],), ([-1, 0], [0.5, 0]), (["a"],)], ids=str)
def test_what_is_no_integer(arguments):
    with pytest.raises(TypeError, match=r"^(parents|positions): expected integers, got dtype"):
        Trees(*arguments)
