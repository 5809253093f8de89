"""Random trees for the tests."""

import numpy as np
from hypothesis import strategies as st


@st.composite
def forests(draw, most_children=3, most=40):
    """(parents, positions) of random trees whose nodes are numbered at random, with gaps between positions."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return random_forest(rng, draw(st.integers(1, most)), draw(st.integers(1, most_children)))


def random_forest(rng, N, most_children):
    number, parents, positions, free = rng.permutation(N), np.full(N, -1), np.zeros(N, int), []
    for node in number:
        chosen = rng.integers(-1, len(free)) if free else -1
        if chosen >= 0:
            parents[node], positions[node] = free.pop(chosen)
        free += [(node, place) for place in range(most_children)]
    return parents, positions
