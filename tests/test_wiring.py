"""What layers and models say that they are made of."""

import pytest

import fastrnn
from fastrnn import wiring
from fastrnn.models import CharLM, Seq2Seq, SequenceClassifier, SequenceGenerator, SequenceRegressor, SequenceTagger

SIZES = {"hidden_size": 8, "embedding_size": 4}
BOTH = {**SIZES, "bidirectional": True, "num_layers": 2}
STATED = {
    "layer": lambda: fastrnn.GRU(5, 8, 2, bidirectional=True),
    "charlm": lambda: CharLM("abc", hidden_size=8, embedding_size=4),
    "tagger": lambda: SequenceTagger(3, input_size=5, hidden_size=8),
    "classifier": lambda: SequenceClassifier(3, num_tokens=9, **BOTH),
    "regressor": lambda: SequenceRegressor(3, num_tokens=9, pooling="max", **BOTH),
    "generator": lambda: SequenceGenerator(9, 4, condition="both", **SIZES),
    "seq2seq": lambda: Seq2Seq(9, 7, attention=True, **BOTH),
}


def names_of(parts):
    return [part.name for part in parts]


@pytest.mark.parametrize("name", STATED)
def test_links_join_parts_that_exist(name):
    stated = STATED[name]().wiring()
    names = [part.of(lane.title).name for lane in stated.lanes for part in lane.parts]
    assert len(set(names)) == len(names)
    assert {end for link in stated.links for end in (link.source, link.target)} <= set(names)


@pytest.mark.parametrize(
    ("read", "above"),
    [
        ("each", [("LSTM 1 concat", "each")]),
        ("last", [("LSTM 1 concat", "last")]),
        ("", []),
    ],
)
def test_directions_meet_where_they_are_read(read, above):
    parts = wiring.recurrent(fastrnn.LSTM(5, 8, 2, bidirectional=True), read)
    layers = ["LSTM 0 forward", "LSTM 0 reverse", "LSTM 0 concat", "LSTM 1 forward", "LSTM 1 reverse"]
    assert names_of(parts[:5]) == layers
    assert [(part.name, part.steps) for part in parts[5:]] == above
    assert [part.direction for part in parts[:5]] == [1, -1, 0, 1, -1]
    assert [part.states for part in parts[:2]] == [
        (("h_{t-1}", "(B, 8)"), ("c_{t-1}", "(B, 8)")),
        (("h_{t+1}", "(B, 8)"), ("c_{t+1}", "(B, 8)")),
    ]


def test_weights_are_those_of_the_parameters():
    layer = fastrnn.LSTM(5, 8, 2, proj_size=3, peepholes=True)
    first, second = wiring.recurrent(layer)
    assert (first.weights, first.shape) == (("W_ih (4\N{MIDDLE DOT}8, 5)",), "(B, 3)")
    assert second.weights == ("W_ih (4\N{MIDDLE DOT}8, 3)",)
    assert second.loop == ("W_hh (4\N{MIDDLE DOT}8, 3)", "W_hr (3, 8)", "W_ch (3, 8)")


@pytest.mark.parametrize(
    ("pooling", "parts"),
    [
        ("last", [("LSTM 0", "each"), ("head", "last"), ("output", "last")]),
        ("mean", [("LSTM 0", "each"), ("pool", "all"), ("head", "all"), ("output", "all")]),
    ],
)
def test_a_head_says_which_steps_it_reads(pooling, parts):
    model = SequenceClassifier(3, num_tokens=9, pooling=pooling, **SIZES)
    (lane,) = model.wiring().lanes
    assert [(part.name, part.steps) for part in lane.parts[2:]] == parts


def test_one_hot_tokens_have_no_embedding():
    for model in (CharLM("abc", hidden_size=8), SequenceTagger(3, num_tokens=9, hidden_size=8, embedding_size=0)):
        (lane,) = model.wiring().lanes
        assert lane.parts[0].shape == "(B,)"
        assert lane.parts[1].kind == "recurrent"
