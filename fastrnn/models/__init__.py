"""Whole models, trained from batches: one to many, many to one, many to many; and a character model.

`load(path)` gives back any of them from the file that its `save(path)` wrote.
"""

from fastrnn.checkpoint import MODELS
from fastrnn.models.charlm import CharLM
from fastrnn.models.classifier import SequenceClassifier, SequenceRegressor
from fastrnn.models.encoder import Options
from fastrnn.models.generator import SequenceGenerator
from fastrnn.models.model import Epoch, Model, Network, Step
from fastrnn.models.seq2seq import Seq2Seq
from fastrnn.models.tagger import SequenceTagger

load = Network.load

MODELS.update(
    {
        model.__name__: model
        for model in (CharLM, Seq2Seq, SequenceClassifier, SequenceGenerator, SequenceRegressor, SequenceTagger)
    }
)

__all__ = [
    "CharLM",
    "Epoch",
    "Model",
    "Options",
    "Seq2Seq",
    "SequenceClassifier",
    "SequenceGenerator",
    "SequenceRegressor",
    "SequenceTagger",
    "Step",
    "load",
]
