"""Pictures: what is drawn and where, not pixels; HTML and text for the terminal; the command `fastrnn plot`."""

import copy
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree
from html.parser import HTMLParser
from itertools import combinations, pairwise

import numpy as np
import pytest
from click.testing import CliRunner

import fastrnn
from fastrnn import cli, plot
from fastrnn.models import CharLM, Epoch, SequenceClassifier, SequenceRegressor, SequenceTagger
from fastrnn.models.generator import SequenceGenerator
from fastrnn.models.seq2seq import Seq2Seq
from fastrnn.plot import heat
from fastrnn.plot.graph import BOX, EDGES, NODES
from fastrnn.plot.style import COLOURS, DASHES, MARKERS
from fastrnn.plot.unroll import graph_of
from fastrnn.wiring import Lane, Link, Part, Wiring

matplotlib = pytest.importorskip("matplotlib")
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402

TEXT = 'It was the <b>best</b> of times,\nit was "the" worst & \tof times.'
VOCABULARY = "".join(sorted(set(TEXT)))


def charlm(**options):
    return CharLM(VOCABULARY, **{"cell": "lstm", "hidden_size": 8, "seed": 0, **options})


class Stated:
    """What states a wiring can be drawn: here four states from one lane to another, and weights for each of them."""

    def wiring(self):
        states = tuple((f"{name}_{{t-1}}", "(B, 1000)") for name in "hcnm")
        loop = ("W_hh (4·1000, 1000)", *(f"W_{name} (1, 1000)" for name in "hcnm"))
        cell = Part("cell", "recurrent", "(B, 1000)", ("W_ih (4·1000, 3)",), states=states, loop=loop)
        lanes = [Lane(title, [Part("input", "input", "(B, 3)", label="x_t"), cell]) for title in ("first", "second")]
        return Wiring("two lanes", tuple(lanes), (Link("first cell", "second cell", "state"),))


SIZES = {"hidden_size": 8, "embedding_size": 4, "seed": 0}
BOTH = {**SIZES, "bidirectional": True}
DRAWN = {
    "rnn": lambda: fastrnn.RNN(5, 8),
    "lstm-3": lambda: fastrnn.LSTM(5, 8, 3),
    "lstm-projected": lambda: fastrnn.LSTM(5, 2000, 2, proj_size=3, peepholes=True),
    "gru-both": lambda: fastrnn.GRU(5, 8, bidirectional=True),
    "lstm-both-3": lambda: fastrnn.LSTM(5, 8, 3, bidirectional=True),
    "lstm-both-projected": lambda: fastrnn.LSTM(5, 8, 2, bidirectional=True, proj_size=3, peepholes=True),
    "rnn-long": lambda: fastrnn.RNN(1234567, 2, bidirectional=True),
    "charlm": charlm,
    "charlm-embedded": lambda: charlm(num_layers=2, embedding_size=3, hidden_size=1000),
    "classifier": lambda: SequenceClassifier(3, input_size=28, **SIZES),
    "classifier-both": lambda: SequenceClassifier(3, num_tokens=9, num_layers=2, **BOTH),
    "classifier-mean": lambda: SequenceClassifier(3, num_tokens=9, pooling="mean", **SIZES),
    "regressor-max-both": lambda: SequenceRegressor(3, num_tokens=9, pooling="max", **BOTH),
    "tagger": lambda: SequenceTagger(3, num_tokens=9, **BOTH),
    "generator-state": lambda: SequenceGenerator(9, 4, num_layers=2, **SIZES),
    "generator-input": lambda: SequenceGenerator(9, 4, condition="input", **SIZES),
    "generator-both": lambda: SequenceGenerator(9, 4, condition="both", cell="gru", num_layers=3, **SIZES),
    "seq2seq": lambda: Seq2Seq(9, 7, num_layers=2, **SIZES),
    "seq2seq-both": lambda: Seq2Seq(9, 7, num_layers=2, **BOTH),
    "seq2seq-attention": lambda: Seq2Seq(9, 7, attention=True, **SIZES),
    "seq2seq-both-attention": lambda: Seq2Seq(9, 7, attention=True, num_layers=2, **BOTH),
    "stated": Stated,
}


def steps_of(graph, what):
    """The steps that have a box of this name."""
    return {int(m[1]) for name in graph.nodes if (m := re.fullmatch(rf"step (\d+) {what}", name))}


def ends_of(graph, kind, panel=""):
    return {(e.source, e.target) for e in graph.edges if e.kind == kind and e.source.startswith(panel)}


def labels_of(graph):
    return {(edge.source, edge.target): label.text for edge in graph.edges for label in edge.labels}


# What is in the graph


def test_a_layer_and_its_unrolled_copy():
    graph = graph_of(fastrnn.LSTM(5, 8), 3)
    chain = ("input", "LSTM 0", "output")
    columns = ["cyclic", "step 0", "step 1", "step 2"]
    assert set(graph.nodes) == {f"{column} {what}" for column in columns for what in chain}
    assert ends_of(graph, "through") == {(f"{c} {a}", f"{c} {b}") for c in columns for a, b in pairwise(chain)}
    loops = {("cyclic LSTM 0", "cyclic LSTM 0")}
    assert ends_of(graph, "time") == loops | {(f"step {t} LSTM 0", f"step {t + 1} LSTM 0") for t in (0, 1)}
    labels = labels_of(graph)
    assert labels["cyclic input", "cyclic LSTM 0"] == "(B, 5)\nW_ih (4·8, 5)"
    assert labels["cyclic LSTM 0", "cyclic LSTM 0"] == "h_{t-1} (B, 8)\nc_{t-1} (B, 8)\nW_hh (4·8, 8)"
    assert [graph.nodes[f"step {t} input"].label for t in range(3)] == ["x_0", "x_1", "x_2"]
    assert [label.text for label in graph.headings] == [
        "LSTM, input 5, hidden 8",
        "unrolled over 3 steps",
    ]


def test_shapes_are_those_of_the_parameters():
    layer = fastrnn.LSTM(5, 8, 2, proj_size=3, peepholes=True)
    labels = labels_of(graph_of(layer))
    assert labels["cyclic LSTM 0", "cyclic LSTM 1"] == "(B, 3)\nW_ih (4·8, 3)"
    loop = labels["cyclic LSTM 1", "cyclic LSTM 1"].split("\n")
    assert loop == ["h_{t-1} (B, 3)", "c_{t-1} (B, 8)", "W_hh (4·8, 3)", "W_hr (3, 8)", "W_ch (3, 8)"]
    for name, text in (("weight_ih_l1", labels["cyclic LSTM 0", "cyclic LSTM 1"]), ("weight_hh_l1", loop[2])):
        rows, columns = re.search(r"W_\w+ \(4·(\d+), (\d+)\)", text).groups()
        assert layer.parameters[name].shape == (4 * int(rows), int(columns))


def test_directions_run_against_each_other_and_meet():
    graph = graph_of(fastrnn.GRU(5, 8, 2, bidirectional=True), 3)
    for k in (0, 1):
        for t in (0, 1):
            assert (f"step {t} GRU {k} forward", f"step {t + 1} GRU {k} forward") in ends_of(graph, "time")
            assert (f"step {t + 1} GRU {k} reverse", f"step {t} GRU {k} reverse") in ends_of(graph, "time")
        for column in ("cyclic", "step 0", "step 2"):
            for direction in ("forward", "reverse"):
                assert (f"{column} GRU {k} {direction}", f"{column} GRU {k} concat") in ends_of(graph, "through")
                below = f"{column} GRU 0 concat" if k else f"{column} input"
                assert (below, f"{column} GRU {k} {direction}") in ends_of(graph, "through")
    assert labels_of(graph)["cyclic GRU 0 reverse", "cyclic GRU 0 reverse"].startswith("h_{t+1}")
    assert "(B, 2·8)" in labels_of(graph)["cyclic GRU 0 concat", "cyclic GRU 1 forward"]


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("charlm", {0, 1, 2, 3}, {0, 1, 2, 3}),
        ("tagger", {0, 1, 2, 3}, {0, 1, 2, 3}),
        ("generator-state", {0, 1, 2, 3}, {0, 1, 2, 3}),
        ("classifier", {0, 1, 2, 3}, set()),
        ("regressor-max-both", {0, 1, 2, 3}, set()),
    ],
)
def test_steps_have_the_inputs_and_outputs_of_their_wiring(name, inputs, outputs):
    graph = graph_of(DRAWN[name](), 4)
    assert (steps_of(graph, "input"), steps_of(graph, "output")) == (inputs, outputs)
    assert ("unrolled output" in graph.nodes) == (not outputs)


def test_many_to_one_reads_the_last_state_of_each_direction():
    graph = graph_of(DRAWN["classifier"](), 4)
    assert ("step 3 LSTM 0", "unrolled head") in ends_of(graph, "through")
    graph = graph_of(DRAWN["classifier-both"](), 4)
    into = {a for a, b in ends_of(graph, "through") if b == "unrolled LSTM 1 concat"}
    assert into == {"step 3 LSTM 1 forward", "step 0 LSTM 1 reverse"}
    assert ("unrolled LSTM 1 concat", "unrolled head") in ends_of(graph, "through")
    assert steps_of(graph, "LSTM 1 concat") == set()
    x = {name: graph.nodes[name].at[0] for name in ("unrolled LSTM 1 concat", "step 3 input", "unrolled head")}
    assert len(set(x.values())) == 1


def test_pooling_reads_all_steps():
    graph = graph_of(DRAWN["classifier-mean"](), 4)
    assert {a for a, b in ends_of(graph, "through") if b == "unrolled pool"} == {f"step {t} LSTM 0" for t in range(4)}
    assert graph.nodes["unrolled pool"].label == "mean over t"


def test_one_to_many_feeds_its_output_back():
    graph = graph_of(DRAWN["generator-both"](), 3)
    assert ends_of(graph, "back", "step") == {(f"step {t} output", f"step {t + 1} input") for t in (0, 1)}
    assert ends_of(graph, "back", "cyclic") == {("cyclic output", "cyclic input")}
    assert [graph.nodes[f"step {t} input"].label for t in range(3)] == ["start", "y_0", "y_1"]
    assert ends_of(graph, "state", "unrolled") == {("unrolled bridge", f"step 0 GRU {k}") for k in range(3)}
    assert ends_of(graph, "every", "unrolled") == {("unrolled condition", f"step {t} concat") for t in range(3)}
    assert labels_of(graph)["cyclic concat", "cyclic GRU 0"] == "(B, 8)\nW_ih (3·8, 8)"  # embedding and condition
    assert not ends_of(graph_of(DRAWN["generator-state"]()), "every")
    assert not ends_of(graph_of(DRAWN["generator-input"]()), "state")


def test_an_encoder_hands_its_last_state_to_a_decoder():
    graph = graph_of(DRAWN["seq2seq"](), 3)
    assert steps_of(graph, "encoder input") == steps_of(graph, "decoder output") == {0, 1, 2}
    assert not steps_of(graph, "encoder output")
    assert ends_of(graph, "state", "step") == {(f"step 2 encoder LSTM {k}", f"step 0 decoder LSTM {k}") for k in (0, 1)}
    graph = graph_of(DRAWN["seq2seq-both"](), 3)
    into = {a for a, b in ends_of(graph, "state") if b == "unrolled bridge 1"}
    assert into == {"step 2 encoder LSTM 1 forward", "step 0 encoder LSTM 1 reverse"}
    graph = graph_of(DRAWN["seq2seq-attention"](), 3)
    assert {a for a, b in ends_of(graph, "through") if b == "unrolled encoder memory"} == {
        f"step {t} encoder LSTM 0" for t in range(3)
    }
    assert ends_of(graph, "every", "unrolled") == {
        ("unrolled encoder memory", f"step {t} decoder attention") for t in range(3)
    }


@pytest.mark.parametrize("T", [0, 65, -1])
def test_steps_are_checked(T):
    with pytest.raises(ValueError, match=rf"^T: expected an integer in 1\.\.64, got {T}$"):
        graph_of(charlm(), T)


def test_what_has_no_recurrent_layer_is_refused():
    with pytest.raises(
        ValueError, match=r"^plot: expected a recurrent layer or a model of recurrent layers, got Linear$"
    ):
        plot.unrolled(fastrnn.Linear(2, 3))


# How it is drawn


def crosses(box, a, b):
    """Whether the line from a to b meets the inside of a box."""
    (x0, y0, x1, y1), lower, upper = box, 0.0, 1.0
    for start, end, low, high in ((a[0], b[0], x0, x1), (a[1], b[1], y0, y1)):
        if start == end:
            if not low < start < high:
                return False
            continue
        first, second = sorted(((low - start) / (end - start), (high - start) / (end - start)))
        lower, upper = max(lower, first), min(upper, second)
    return lower < upper


def apart(p, q):
    return p[2] <= q[0] or q[2] <= p[0] or p[3] <= q[1] or q[3] <= p[1]


SHORT_AND_LONG = [(name, T) for name in ("classifier-both", "generator-both", "seq2seq-attention") for T in (1, 2, 9)]


@pytest.mark.parametrize(("name", "T"), [*((name, 4) for name in DRAWN), *SHORT_AND_LONG])
def test_nothing_is_cut_or_overlaps(name, T):
    """Text, measured as drawn, and boxes keep apart; no line runs through either; all lie within the figure."""
    model = DRAWN[name]()
    graph, figure = graph_of(model, T), plot.unrolled(model, T)
    (axes,) = figure.axes
    renderer = FigureCanvasAgg(figure).get_renderer()
    inches = axes.transData.inverted()
    nodes = {name: (x - n.width / 2, y - BOX / 2, x + n.width / 2, y + BOX / 2)
             for name, n in graph.nodes.items() for x, y in [n.at]}  # fmt: skip
    texts = {}
    for i, text in enumerate(axes.texts):
        texts[i, text.get_text()] = tuple(text.get_window_extent(renderer).transformed(inches).extents)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for label, box in texts.items():
        assert left < box[0] < box[2] < right, label
        assert bottom < box[1] < box[3] < top, label
    for (one, p), (other, q) in combinations(texts.items(), 2):
        assert apart(p, q), (one, other)
    for (one, p), (other, q) in combinations(nodes.items(), 2):
        assert apart(p, q), (one, other)
    for label, p in texts.items():
        for node, q in nodes.items():
            inside = q[0] <= p[0] and q[1] <= p[1] and p[2] <= q[2] and p[3] <= q[3]
            assert inside or apart(p, q), (label, node)
    for edge in graph.edges:
        for a, b in pairwise(edge.points):
            for label, box in texts.items():
                inside = any(
                    q[0] <= box[0] and box[2] <= q[2] and q[1] <= box[1] and box[3] <= q[3] for q in nodes.values()
                )
                assert inside or not crosses(box, a, b), (edge, label)
            for node, q in nodes.items():
                inner = (q[0] + 0.01, q[1] + 0.01, q[2] - 0.01, q[3] - 0.01)
                assert not crosses(inner, a, b), (edge, node)


def test_the_check_of_overlaps_sees_them():
    assert crosses((0, 0, 1, 1), (-1, 0.5), (2, 0.5))
    assert crosses((0, 0, 1, 1), (-1, -1), (0.5, 0.5))
    assert not crosses((0, 0, 1, 1), (-1, 1.5), (2, 1.5))
    assert not crosses((0, 0, 1, 1), (-1, 0.5), (-0.5, 0.5))
    assert not apart((0, 0, 1, 1), (0.5, 0.5, 2, 2))
    assert apart((0, 0, 1, 1), (1.5, 0, 2, 1))


@pytest.mark.parametrize("name", DRAWN)
def test_lines_upward_stay_with_their_boxes(name):
    """They pass by the boxes between, and go nowhere else."""
    graph = graph_of(DRAWN[name](), 4)
    for edge in graph.edges:
        if edge.kind == "through":
            ends = graph.nodes[edge.source], graph.nodes[edge.target]
            left = min(node.at[0] - node.width / 2 for node in ends)
            right = max(node.at[0] + node.width / 2 for node in ends)
            assert all(left - 0.2 < x < right + 0.2 for x, _ in edge.points), edge
            assert all(before[1] <= after[1] for before, after in pairwise(edge.points)), edge


@pytest.mark.parametrize("name", ["lstm-both-3", "generator-both", "seq2seq-both-attention", "stated"])
def test_edges_end_on_their_boxes(name):
    graph = graph_of(DRAWN[name](), 3)
    for edge in graph.edges:
        for end, node in ((edge.points[0], graph.nodes[edge.source]), (edge.points[-1], graph.nodes[edge.target])):
            dx, dy = abs(end[0] - node.at[0]) - node.width / 2, abs(end[1] - node.at[1]) - BOX / 2
            assert max(dx, dy) == pytest.approx(0, abs=1e-9), edge


def test_the_figure_has_a_box_for_every_node_and_a_key():
    model = DRAWN["generator-both"]()
    graph, figure = graph_of(model, 3), plot.unrolled(model, 3)
    assert {patch.get_gid() for patch in figure.axes[0].patches} - {None} == set(graph.nodes)
    texts = [text.get_text() for text in figure.axes[0].texts]
    for kind in EDGES:
        assert texts.count(EDGES[kind][2]) == 1
    assert "start" in texts
    assert r"$y_{\mathrm{t{-}1}}$" in texts


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_files_are_the_same_every_time(tmp_path, suffix):
    for name in ("a", "b"):
        plot.save(plot.unrolled(charlm(), 2), tmp_path / (name + suffix))
    first, second = ((tmp_path / (name + suffix)).read_bytes() for name in ("a", "b"))
    assert first == second
    assert b"<svg" in first if suffix == ".svg" else first.startswith(b"\x89PNG")
    assert b"dc:date" not in first
    if suffix == ".svg":
        xml.etree.ElementTree.fromstring(first)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.pdf: expected a name that ends in \.svg, \.png$"):
        plot.save(plot.curves(RECORDS), tmp_path / "a.pdf")


def test_pictures_leave_matplotlib_as_it_was():
    before = copy.deepcopy(dict(matplotlib.rcParams))
    matplotlib.rcParams["font.size"] = 30
    try:
        small = plot.unrolled(charlm(), 2).get_size_inches()
    finally:
        matplotlib.rcParams["font.size"] = before["font.size"]
    np.testing.assert_array_equal(small, plot.unrolled(charlm(), 2).get_size_inches())
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", DRAWN)
def test_dot_says_the_same(name, tmp_path):
    model = DRAWN[name]()
    graph, text = graph_of(model, 3), plot.unrolled_dot(model, 3)
    assert text.startswith("digraph fastrnn {\n")
    assert text.endswith("}\n")
    declared = dict(re.findall(r'^  "([^"]+)" \[label=<(.*?)>, pos=', text, re.MULTILINE))
    assert set(graph.nodes) == {name for name in declared if not name.startswith("heading ")}
    edges = re.findall(r'^  "([^"]+)" -> "([^"]+)" \[', text, re.MULTILINE)
    assert edges == [(edge.source, edge.target) for edge in graph.edges]
    assert {end for edge in edges for end in edge} <= set(declared)
    assert set(re.findall(r"style=(\w+)]", text)) <= {"solid", "bold", "dashed", "dotted"}  # that Graphviz knows
    for line in text.splitlines()[1:-1]:
        assert line.endswith("];")
        assert line.count('"') % 2 == 0
        for label in re.findall(r"label=(<.*>), (?:pos|color)=", line):
            xml.etree.ElementTree.fromstring(f"<label>{label[1:-1]}</label>")
    if shutil.which("dot"):
        subprocess.run(["dot", "-Tsvg", "-o", tmp_path / "x.svg"], input=text.encode(), check=True)


def test_dot_and_figure_have_one_set_of_labels():
    text = plot.unrolled_dot(fastrnn.LSTM(5, 8), 2)
    assert "label=<h<sub>t-1</sub> (B, 8)<br/>c<sub>t-1</sub> (B, 8)<br/>W<sub>hh</sub> (4·8, 8)>" in text
    assert "label=<(B, 5)<br/>W<sub>ih</sub> (4·8, 5)>" in text


# Lines


def window(T, B):
    return tuple(np.random.default_rng(0).integers(len(VOCABULARY), size=(2, T, B)))


def lines_of(axes):
    return {line.get_label(): line for line in axes.lines}


def test_gradient_flow_shows_every_norm():
    model, batch = charlm(num_layers=2), window(12, 3)
    with fastrnn.gradient_flow() as flow:
        model.loss_and_gradients(*batch)
    (axes,) = plot.gradient_flow(model, batch).axes
    assert axes.get_yscale() == "log"
    lines = lines_of(axes)
    assert list(lines) == ["layer 0", "layer 1"]
    for f in flow:
        np.testing.assert_array_equal(lines[str(f)].get_ydata(), f.norms)
        np.testing.assert_array_equal(lines[str(f)].get_xdata(), np.arange(12))


def test_gradient_flow_is_overlaid_with_clipping():
    model, batch = charlm(), window(12, 3)
    lines = lines_of(plot.gradient_flow(model, batch, 1e-4).axes[0])
    assert list(lines) == ["layer 0", "layer 0, clipped at 0.0001"]
    free, clipped = (line.get_ydata() for line in lines.values())
    assert (clipped < free).any()
    assert clipped.max() <= 1e-4 * np.sqrt(3 * 8) * 1.0001
    a, b = lines.values()
    assert a.get_color() == b.get_color()
    assert a.get_linestyle() != b.get_linestyle()


def test_gradient_flow_leaves_the_model_and_drops_the_same_units():
    model, batch = charlm(dropout=0.5, num_layers=2), window(6, 2)
    before = model.parameters.flat.copy()
    lines = lines_of(plot.gradient_flow(model, batch, 1e9).axes[0])
    np.testing.assert_array_equal(model.parameters.flat, before)
    np.testing.assert_array_equal(lines["layer 0"].get_ydata(), lines["layer 0, clipped at 1e+09"].get_ydata())
    twin = charlm(dropout=0.5, num_layers=2)
    assert model.loss_and_gradients(*batch)[0] == twin.loss_and_gradients(*batch)[0]


def test_gradient_flow_of_models_of_sequences():
    rng = np.random.default_rng(0)
    x = [rng.integers(9, size=n) for n in (5, 3)]
    figure = plot.gradient_flow(SequenceTagger(3, num_tokens=9, **BOTH), (x, [each % 3 for each in x]))
    assert list(lines_of(figure.axes[0])) == ["layer 0", "layer 0, reverse"]
    figure = plot.gradient_flow(DRAWN["seq2seq"](), (x, [each % 7 for each in x]))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["encoder", "decoder"]
    assert [len(axes.lines[0].get_xdata()) for axes in figure.axes] == [5, 6]


def test_a_gradient_that_is_not_finite_is_named():
    model = charlm()
    model.parameters["decoder.weight"][0] = np.inf
    with np.errstate(all="ignore"):
        (label,) = lines_of(plot.gradient_flow(model, window(4, 2)).axes[0])
    assert label == "layer 0 (not finite at 3)"


RECORDS = [
    {"step": 2 * i, "train_loss": 3 / i, "val_loss": 4 / i if i % 3 == 0 else None, "chars_per_second": 1e5}
    for i in range(1, 40)
]


def test_curves_are_those_of_the_file(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    for metrics in (path, str(path), RECORDS):
        (axes,) = plot.curves(metrics).axes
        train, validation = lines_of(axes).values()
        np.testing.assert_array_equal(train.get_xydata(), [(r["step"], r["train_loss"]) for r in RECORDS])
        np.testing.assert_array_equal(
            validation.get_xydata(), [(r["step"], r["val_loss"]) for r in RECORDS if r["val_loss"]]
        )
        assert list(lines_of(axes)) == ["training", "validation"]
    _, speed = plot.curves(path, speed=True).axes
    assert set(speed.lines[0].get_ydata()) == {1e5}


def test_curves_of_epochs():
    epochs = [Epoch(i, 1 / i, None, 1.0, 1.0) for i in (1, 2, 3)]
    (axes,) = plot.curves(epochs).axes
    assert axes.get_xlabel() == "epoch"
    assert list(lines_of(axes)) == ["training"]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [(1, 1), (2, 1 / 2), (3, 1 / 3)])


@pytest.mark.parametrize(
    ("metrics", "speed", "message"),
    [
        ([], False, r"metrics: expected records of step and loss, got none"),
        ([{"step": 1}], False, r"metrics: expected records of step and loss, got none"),
        ([{"step": 1, "loss": 2.0}], True, r"metrics: expected chars_per_second, got none"),
    ],
)
def test_what_has_no_curve_is_refused(metrics, speed, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        plot.curves(metrics, speed)


def figures():
    yield plot.gradient_flow(charlm(num_layers=3), window(40, 2), 1e-3)
    yield plot.gradient_flow(DRAWN["seq2seq-both"](), ([np.arange(9)], [np.arange(5)]), 0.1)
    yield plot.curves(RECORDS, speed=True)


@pytest.mark.parametrize("index", range(3))
def test_text_of_lines_is_not_cut_and_does_not_overlap(index):
    figure = list(figures())[index]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    found = figure.findobj(lambda a: isinstance(a, matplotlib.text.Text) and a.get_visible() and a.get_text().strip())
    width, height = canvas.get_width_height()
    boxes = {(i, a.get_text()): a.get_window_extent(renderer).extents for i, a in enumerate(found)}
    boxes = {key: box for key, box in boxes.items() if box[2] > box[0]}
    ticks = {a for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for a in axis.get_ticklabels(which="both")}
    for i, a in enumerate(found):
        box = boxes.get((i, a.get_text()))
        if box is None or a in ticks:
            continue
        assert box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height, a
        for other, q in boxes.items():
            assert other[0] == i or apart(box, q), (a, other)


def test_lines_differ_in_more_than_colour():
    assert len(set(COLOURS)) == len(set(map(str, DASHES))) == len(set(MARKERS)) == 6
    styles = [style for _, style, _ in EDGES.values()]
    assert len(set(styles)) == len(styles)


# Units over a text


def test_activations_are_those_of_the_layer():
    model = charlm(num_layers=2, embedding_size=3)
    found = plot.activations(model, TEXT, [0, 5], layer=1, value="c")
    x = model.embedding(model.encode(TEXT)[:, None])
    cells = model.rnn(x, return_cells=True)[2]
    np.testing.assert_allclose(found.values, cells[1]["c"][:, 0, [0, 5]].T, rtol=1e-5)
    assert found.units == (0, 5)
    h = plot.activations(charlm(cell="gru"), TEXT, 3)
    eye = np.eye(len(VOCABULARY), dtype=np.float32)[charlm().encode(TEXT)][:, None]
    np.testing.assert_allclose(h.values[0], charlm(cell="gru").rnn(eye)[0][:, 0, 3], rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unit": 8}, r"unit: expected an integer in 0\.\.7, got 8"),
        ({"unit": [0, -1]}, r"unit: expected an integer in 0\.\.7, got -1"),
        ({"layer": 1}, r"layer: expected an integer in -1\.\.0, got 1"),
        ({"value": "z"}, r"value: expected one of h, i, f, g, o, c, got 'z'"),
        ({"text": "xyz"}, r"text: character 'x' \(U\+0078\) at 0 is not in the vocabulary"),
        ({"model": fastrnn.RNN(2, 3)}, r"model: expected a CharLM, got RNN"),
    ],
)
def test_what_cannot_be_shown_is_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        plot.activations(**{"model": charlm(), "text": TEXT, "unit": 0, **arguments})


class Page(HTMLParser):
    """The spans of each <pre>, and all tags."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.tags, self.open = [], set(), []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag != "meta":
            self.open.append(tag)
        if tag == "pre":
            self.texts.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "pre" in self.open:
            self.texts[-1] += data


def test_html_is_whole_escaped_and_needs_nothing():
    found = plot.activations(charlm(), TEXT, [1, 2])
    page = Page(found.html())
    assert page.open == []
    assert page.tags == {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "span", "pre"}
    assert page.texts == [TEXT.replace("\n", "↵\n").replace("\t", "␉")] * 2
    assert "&lt;b&gt;best&lt;/b&gt;" in re.sub(r"</?span[^>]*>", "", found.html())
    assert "http" not in found.html()
    assert found._repr_html_() == found.html()
    title = heat.Activations("a", (0,), np.zeros((1, 1)), "<script>").html()
    assert "<script>" not in title


def test_levels_follow_the_values():
    found = heat.Activations("abcde", (0,), np.array([[-2.0, -1.0, 0.0, 0.5, 2.0]]), "")
    assert found.limit == 2
    np.testing.assert_array_equal(found.levels, [[-10, -5, 0, 2, 10]])
    assert heat.Activations("a", (0,), np.zeros((1, 1)), "").levels.item() == 0
    assert heat.Activations("", (0,), np.zeros((1, 0)), "").ansi("none").endswith("\n")
    classes = re.findall(r'<span class="(\w+)" title="([^"]*)">(\w)', found.html())
    assert classes == [("b10", "-2.00", "a"), ("b5", "-1.00", "b"), ("a0", "0.00", "c"), ("a2", "0.50", "d"),
                       ("a10", "2.00", "e")]  # fmt: skip


def luminance(colour):
    """Relative, 0..1. Source: WCAG 2.1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (n / 255 for n in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_are_monotonic_legible_and_told_apart():
    for sign in (1, -1):
        light = [luminance(heat.colour(sign * level)) for level in range(heat.LEVELS + 1)]
        assert all(darker < lighter - 0.01 for lighter, darker in pairwise(light))
    levels = range(-heat.LEVELS, heat.LEVELS + 1)
    assert all(contrast(heat.colour(level), heat.INK) >= 7 for level in levels)
    for level in range(3, heat.LEVELS + 1):  # blue and orange: apart for every kind of colour-blindness
        assert heat.colour(-level)[2] - heat.colour(level)[2] > 50
    assert luminance((255, 255, 255)) == pytest.approx(1)
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    for fill in NODES.values():
        assert contrast(tuple(bytes.fromhex(fill[1:])), (34, 34, 34)) > 7


def unpainted(text):
    return re.sub(r"\x1b\[[\d;]*m", "", text)


@pytest.mark.parametrize("depth", ["24bit", "256"])
def test_the_terminal_sees_the_text_on_colours(depth):
    found = plot.activations(charlm(), TEXT, [1, 2])
    shown = found.ansi(depth)
    assert unpainted(shown).count(TEXT.replace("\n", "↵\n").replace("\t", "␉")) == 2
    assert shown.count("\x1b[") == 2 * shown.count("\x1b[0m")
    kind = r"2;\d+;\d+;\d+" if depth == "24bit" else r"5;\d+"
    assert re.fullmatch(rf"(4;)?48;{kind};38;{kind}", re.search(r"\x1b\[([\d;]+)m", shown)[1])
    for painted in re.findall(r"\x1b\[([\d;]+)m[^\x1b]*\x1b\[0m", shown)[: heat.LEVELS]:
        assert painted.startswith("4;")  # below 0


def test_without_colours_signs_stand_below_the_text():
    found = heat.Activations("ab\ncd", (7,), np.array([[-1.0, 0.0, 0.3, 0.9, 1.0]]), "title")
    assert found.ansi("none") == (
        "title\na..j: below 0, down to -1; 1..9, 0: above 0, up to 1\n\nunit 7\nab↵\nj 3\ncd\n90\n"
    )


def test_a_text_commands_no_terminal():
    text = "a\x1b[31mb\x07\x9b\x7f"
    found = heat.Activations(text, (0,), np.zeros((1, len(text))), "")
    for depth in ("24bit", "none"):
        assert not set("\x1b\x07\x9b\x7f") & set(unpainted(found.ansi(depth)))
    assert "\x1b" not in found.html()


# The command


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a character model, a tagger, a text and metrics."""
    monkeypatch.chdir(tmp_path)
    charlm(num_layers=2).save("model.safetensors")
    SequenceTagger(3, num_tokens=9, **SIZES).save("tagger")
    (tmp_path / "text.txt").write_text(TEXT * 4)
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return tmp_path


def plot_command(*arguments):
    return CliRunner().invoke(cli.main, ["plot", *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["unrolled", "."], "unrolled.svg"),
        (["unrolled", "tagger", "--steps", 2, "--out", "a.png"], "a.png"),
        (["unrolled", "model.safetensors", "--out", "a.dot"], "a.dot"),
        (["flow", ".", "text.txt", "--seq-length", 5, "--clip-step", 0.1], "flow.svg"),
        (["flow", ".", "--batch", 2, "--seq-length", 5, "--out", "a.png"], "a.png"),
        (["curves", "m.jsonl", "--speed"], "curves.svg"),
        (["activations", ".", "text.txt", "--unit", 1, "--unit", 2, "--out", "a.html"], "a.html"),
    ],
)
def test_the_command_writes_a_picture(folder, arguments, name):
    result = plot_command(*arguments)
    assert (result.exit_code, result.output) == (0, f"picture: {name}\n")
    start = {".svg": b"<?xml", ".png": b"\x89PNG", ".dot": b"digraph", ".html": b"<!DOCTYPE html>"}
    path = folder / name
    assert path.read_bytes().startswith(start[path.suffix])


def test_the_command_shows_units_in_the_terminal(folder):
    model = charlm(num_layers=2)
    result = plot_command("activations", ".", "--read", "It was", "--unit", 3, "--layer", 0, "--colours", "24bit")
    assert result.output == plot.activations(model, "It was", 3, 0).ansi()
    result = plot_command("activations", ".", "text.txt", "--length", 9, "--value", "c")
    assert result.output == plot.activations(model, TEXT[:9], 0, value="c").ansi("none")
    assert "unit 0" in plot_command("activations", ".").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["unrolled", "none"], "none: No such file or directory"),
        (["unrolled", "text.txt"], "text.txt: not a safetensors file: "),
        (["unrolled", ".", "--out", "a.pdf"], "--out a.pdf: expected a name that ends in .svg, .png, .dot"),
        (["unrolled", ".", "--out", "none/a.svg"], "none/a.svg: No such file or directory"),
        (["unrolled", ".", "--steps", 0], "Invalid value for '--steps': 0 is not in the range 1<=x<=64."),
        (
            ["flow", "tagger"],
            "tagger: expected a CharLM, got SequenceTagger; fastrnn.plot.gradient_flow takes its batches",
        ),
        (["flow", ".", "text.txt", "--batch", 99], "text: expected at least batch*seq_length + 1 = 4951 characters"),
        (["flow", ".", "--out", "a.dot"], "--out a.dot: expected a name that ends in .svg, .png"),
        (["curves", "none"], "none: No such file or directory"),
        (["curves", "text.txt"], "text.txt: line 1: expected a JSON object"),
        (["activations", ".", "--unit", 8], "unit: expected an integer in 0..7, got 8"),
        (["activations", ".", "--layer", 2], "layer: expected an integer in -2..1, got 2"),
        (["activations", ".", "--value", "z"], "value: expected one of h, i, f, g, o, c, got 'z'"),
        (["activations", ".", "--read", "xyz"], "text: character 'x' (U+0078) at 0 is not in the vocabulary"),
        (["activations", ".", "text.txt", "--read", "It"], "TEXT and --read exclude each other"),
        (["activations", ".", "--out", "a.png"], "--out a.png: expected a name that ends in .html"),
        (["activations", "tagger"], "tagger: expected a CharLM, got SequenceTagger"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(folder, arguments, message):
    result = plot_command(*arguments)
    assert result.exit_code in (1, 2)
    assert result.stdout == ""
    assert result.stderr.startswith(f"fastrnn: error: {message}")
    assert result.stderr.count("\n") == 1


def test_a_missing_matplotlib_is_one_line(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = "plot: needs matplotlib: pip install 'fastrnn[plot]'"
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        plot.unrolled(charlm())
    for arguments in (["unrolled", "."], ["curves", "m.jsonl"], ["flow", ".", "text.txt", "--seq-length", 5]):
        result = plot_command(*arguments)
        assert (result.exit_code, result.stderr) == (1, f"fastrnn: error: {message}\n")
    assert plot_command("unrolled", ".", "--out", "a.dot").exit_code == 0
    assert plot_command("activations", ".").exit_code == 0


def test_matplotlib_is_imported_when_it_is_asked_for():
    """And never pyplot, which would choose a window system and keep every figure."""
    code = """
import sys, fastrnn.cli, fastrnn.plot
assert "matplotlib" not in sys.modules
fastrnn.plot.unrolled(fastrnn.RNN(2, 3))
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_says_what_every_option_is_for():
    for name, command in cli.main.commands["plot"].commands.items():
        result = plot_command(name, "--help")
        assert result.exit_code == 0
        assert all(option.help for option in command.params if option.param_type_name == "option")
