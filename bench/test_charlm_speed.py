"""Whole training steps of the character model."""

import itertools

import pytest
from charlm import RECIPES, fastrnn_step, model_of

from fastrnn.training.text import Batches, standard_library, vocabulary_of


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RECIPES)
def test_training_step(benchmark, name, dtype):
    recipe, text = RECIPES[name], standard_library(1_000_000)
    vocabulary = vocabulary_of(text)
    windows = Batches(model_of(recipe, vocabulary, dtype).encode(text), recipe.B, recipe.T)
    step = fastrnn_step(recipe, vocabulary, itertools.cycle(windows), dtype)
    step()
    benchmark.group = "character model, training step"
    benchmark(step)
    benchmark.extra_info["characters/s"] = recipe.T * recipe.B / benchmark.stats["median"]
