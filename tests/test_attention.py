"""Attention within sequences against its reference, the reference against the complex step, and both against torch."""

import numpy as np
import pytest
from cases import DTYPES
from numerics import assert_close, complex_step, relative_error, rounding_budget
from oracles import assert_same, assert_within, import_torch, normal

from fastrnn import threads
from fastrnn.functional import attention, attention_weights
from fastrnn.reference import attention as reference

# queries and memory rows of each sequence
LENGTHS = {
    "one of each": ([1], [1]),
    "vectors' edges": ([15, 16, 17, 33, 1], [1, 33, 17, 15, 16]),
    "without memory": ([3, 2, 4], [5, 0, 2]),
    "without queries": ([3, 0, 4], [5, 7, 2]),
    "nothing": ([0, 0], [0, 0]),
    "no sequence": ([], []),
    "long": ([120, 3], [50, 210]),
}
WIDTHS = (1, 15, 16, 33)


def offsets_of(lengths):
    return np.append(0, np.cumsum(lengths)).astype(np.int64)


def draw(lengths, H, dtype="float64", seed=0):
    """Rows of sequences, and their bounds."""
    m, n = (int(np.sum(each)) for each in lengths)
    arrays = [normal(rows, H, seed=seed + i, dtype=dtype) for i, rows in enumerate((m, n, m))]
    arrays[0] *= H**-0.5
    return dict(zip(("queries", "memory", "d_context"), arrays, strict=True)), *map(offsets_of, lengths)


def compiled(queries, memory, d_context, *offsets):
    context, pullback = attention(queries, memory, *offsets)
    return dict(zip(("context", "d_queries", "d_memory"), (context, *pullback(d_context)), strict=True))


def expected(queries, memory, d_context, *offsets):
    context = reference.attention_forward(queries, memory, *offsets)
    gradients = reference.attention_backward(queries, memory, d_context, *offsets)
    return dict(zip(("context", "d_queries", "d_memory"), (context, *gradients), strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("H", WIDTHS)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_values_and_gradients(lengths, H, dtype):
    inputs, *offsets = draw(lengths, H, dtype)
    wide = {name: value.astype(np.float64) for name, value in inputs.items()}
    budget = rounding_budget(lambda **given: expected(*given.values(), *offsets), wide, np.dtype(dtype))
    assert_within(compiled(*inputs.values(), *offsets), expected(*wide.values(), *offsets), budget)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_the_reference_is_right(lengths):
    lengths = [[min(length, 7) for length in each] for each in lengths]
    inputs, *offsets = draw(lengths, 3)
    d_context = inputs.pop("d_context")

    def objective(queries, memory):
        return (d_context * reference.attention_forward(queries, memory, *offsets)).sum()

    got = expected(*inputs.values(), d_context, *offsets)
    gradients = complex_step(objective, inputs)
    assert_close(
        {"d_" + name: got["d_" + name] for name in gradients}, {"d_" + n: g for n, g in gradients.items()}, 1e-13
    )
    for b, (m, n) in enumerate(zip(*lengths, strict=True)):
        for i in range(m):
            query, rows = inputs["queries"][offsets[0][b] + i], inputs["memory"][offsets[1][b] : offsets[1][b + 1]]
            scores = np.exp([query @ row for row in rows])
            context = (
                sum(score / scores.sum() * row for score, row in zip(scores, rows, strict=True)) if n else 0 * query
            )
            np.testing.assert_allclose(got["context"][offsets[0][b] + i], context, rtol=0, atol=1e-13)


def test_torch_agrees():
    torch = import_torch()
    inputs, *offsets = draw(LENGTHS["vectors' edges"], 20)
    queries, memory, d_context = (torch.from_numpy(value).requires_grad_() for value in inputs.values())
    parts = [slice(*offsets[0][b : b + 2]) for b in range(5)], [slice(*offsets[1][b : b + 2]) for b in range(5)]
    context = torch.cat(
        [
            torch.nn.functional.scaled_dot_product_attention(queries[q], memory[r], memory[r], scale=1.0)
            for q, r in zip(*parts, strict=True)
        ]
    )
    d_queries, d_memory = torch.autograd.grad(context, (queries, memory), d_context)
    wanted = {"context": context.detach(), "d_queries": d_queries, "d_memory": d_memory}
    assert_close(compiled(*inputs.values(), *offsets), {n: v.detach().numpy() for n, v in wanted.items()}, 1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_threads_or_neighbours(dtype, monkeypatch):
    lengths = LENGTHS["vectors' edges"]
    inputs, *offsets = draw(lengths, 33, dtype)
    found = []
    for count in (1, 2, 3, 7):
        monkeypatch.setattr(threads, "for_work", lambda flops, count=count: count)
        found.append(compiled(*inputs.values(), *offsets))
        assert_same(found[-1], found[0])
    for b in range(len(lengths[0])):
        q, r = (slice(*bounds[b : b + 2]) for bounds in offsets)
        own = [offsets_of(each[b : b + 1]) for each in lengths]
        alone = compiled(inputs["queries"][q], inputs["memory"][r], inputs["d_context"][q], *own)
        rows = {"context": q, "d_queries": q, "d_memory": r}
        assert_same({name: found[0][name][part] for name, part in rows.items()}, alone)


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights(dtype):
    inputs, *offsets = draw(LENGTHS["without memory"], 17, dtype)
    found = attention_weights(inputs["queries"], inputs["memory"], *offsets)
    assert [weights.shape for weights in found] == [(3, 5), (2, 0), (4, 2)]
    for b in (0, 2):
        q, r = (slice(*bounds[b : b + 2]) for bounds in offsets)
        np.testing.assert_allclose(found[b].sum(axis=1), 1, rtol=10 * np.finfo(dtype).eps)
        wanted = reference.attention_weights(inputs["queries"][q].astype(float), inputs["memory"][r].astype(float))
        assert relative_error(found[b], wanted) < 100 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_scores(dtype):
    """Scores that e^x has no numbers for pick their row; the gradients stay finite."""
    memory = np.eye(3, 5, dtype=dtype)
    queries = np.array([1e4, -1e4, 0, 0, 0], dtype) * np.ones((2, 1), dtype)
    got = compiled(queries, memory, np.ones_like(queries), *(np.array([0, rows]) for rows in (2, 3)))
    np.testing.assert_array_equal(got["context"], memory[[0, 0]])
    assert all(np.isfinite(value).all() for value in got.values())
