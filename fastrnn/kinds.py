"""The kinds of recurrent cells: a row says all that layers, models, programs and other libraries' formats ask of one.

A new kind is its two cell files, a row here, and a class of layers; `KINDS[tag] = Kind(tag, ...)` adds a row from
anywhere. What its gates and states are called, the traits of its cell say.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pkgutil import resolve_name
from typing import Any, NamedTuple

from fastrnn import checks
from fastrnn.kernels.cells import TRAITS, elman, gru, lstm

# Of one layer in one direction, in the order of functional.Weights, in front of the per-unit weights: torch's names.
_PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


class Foreign(NamedTuple):
    """A kind in another library."""

    name: str  # of the module, layer or operator
    gates: tuple[str, ...] = ()  # in the order that they have there; none where it is ours
    weights: tuple[str, ...] = ()  # the per-unit ones, in theirs
    activations: tuple[str, ...] = ()  # of an operator that has them as settings
    attributes: Mapping[str, Any] = {}  # of the module or operator, those that choose the kind


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind of recurrent cell."""

    tag: type  # the cell, of fastrnn.kernels.cells; its twin in fastrnn.reference.cells has the same name
    layer: str  # where the class of its layers is, module:class, as no layer is imported here
    name: str = ""  # what models and programs call it; none where it is an option of a layer alone
    options: Mapping[str, Any] = field(default_factory=dict)  # of the layer's constructor, by which it is chosen
    own: tuple[str, ...] = ()  # further options, which layers of other kinds don't have
    weighted: type | None = None  # the cell with per-unit weights, where a layer may have them or not
    per_unit: str = "weight_ch"  # the parameter that holds them
    torch: Foreign | None = None  # where torch.nn has it, and so on
    onnx: Foreign | None = None
    keras: Foreign | None = None

    @cached_property
    def gates(self) -> tuple[str, ...]:
        """The names of the gates, in the order that weights have them in."""
        return tuple(TRAITS[self.tag].gates)

    @cached_property
    def states(self) -> tuple[str, ...]:
        """The names of the states, h first."""
        return TRAITS[self.tag].states

    @property
    def parameters(self) -> tuple[str, ...]:
        """What the parameters of one layer in one direction are called, in the order of functional.Weights."""
        return *_PARAMETERS, self.per_unit

    @property
    def layer_name(self) -> str:
        """The name of the layers' class."""
        return self.layer.rpartition(":")[2]

    @property
    def layer_class(self) -> Any:
        """The class of its layers."""
        return resolve_name(self.layer)

    @cached_property
    def weights(self) -> tuple[str, ...]:
        """The names of the per-unit weights that a layer has, or may have."""
        return TRAITS[self.weighted or self.tag].weights

    def suits(self, options: Mapping[str, Any]) -> bool:
        """Whether options, which may be of several kinds, choose it."""
        return self.options.items() <= options.items()

    def order(self, library: str) -> tuple[int, ...]:
        """Where each gate of another library, "onnx" or "keras", lies among ours."""
        return tuple([self.gates.index(gate) for gate in getattr(self, library).gates or self.gates])


_ROWS = (
    Kind(
        elman.ElmanTanh,
        layer="fastrnn.layers:RNN",
        name="tanh",
        options={"nonlinearity": "tanh"},
        torch=Foreign("RNN", attributes={"nonlinearity": "tanh"}),
        onnx=Foreign("RNN", activations=("tanh",)),
        keras=Foreign("SimpleRNN"),
    ),
    Kind(
        elman.ElmanRelu,
        layer="fastrnn.layers:RNN",
        name="relu",
        options={"nonlinearity": "relu"},
        torch=Foreign("RNN", attributes={"nonlinearity": "relu"}),
        onnx=Foreign("RNN", activations=("relu",)),
        keras=Foreign("SimpleRNN"),
    ),
    Kind(
        gru.GRU,
        layer="fastrnn.layers:GRU",
        name="gru",
        options={"reset_after": True},
        torch=Foreign("GRU"),
        onnx=Foreign("GRU", ("z", "r", "n"), activations=("sigmoid", "tanh"), attributes={"linear_before_reset": 1}),
        keras=Foreign("GRU", ("z", "r", "n")),
    ),
    Kind(
        gru.GRUResetBefore,
        layer="fastrnn.layers:GRU",
        options={"reset_after": False},
        onnx=Foreign("GRU", ("z", "r", "n"), activations=("sigmoid", "tanh"), attributes={"linear_before_reset": 0}),
        keras=Foreign("GRU", ("z", "r", "n")),
    ),
    Kind(
        lstm.LSTM,
        layer="fastrnn.layers:LSTM",
        name="lstm",
        own=("proj_size", "peepholes", "forget_bias"),
        weighted=lstm.PeepholeLSTM,
        torch=Foreign("LSTM"),
        onnx=Foreign("LSTM", ("i", "o", "f", "g"), ("p_i", "p_o", "p_f"), ("sigmoid", "tanh", "tanh")),
        keras=Foreign("LSTM"),
    ),
)

KINDS: dict[type, Kind] = {row.tag: row for row in _ROWS}  # by tag


def names() -> tuple[str, ...]:
    """What models and programs have to choose from."""
    return tuple([kind.name for kind in KINDS.values() if kind.name])


def named(name: str) -> Kind:
    """The kind of this name.

    Raises ValueError: `cell: expected one of tanh, relu, gru, lstm, got 'LSTM'`.
    """
    checks.choice("cell", name, names())
    return next(kind for kind in KINDS.values() if kind.name == name)


def of_cell(cell: type) -> Kind:
    """The kind of a cell, with per-unit weights or without."""
    return next(kind for kind in KINDS.values() if cell in (kind.tag, kind.weighted))


def of_layer(layer: str) -> list[Kind]:
    """The kinds that the layers of a class may be of, by its name."""
    return [kind for kind in KINDS.values() if kind.layer_name == layer]


def choices(layer: str, option: str) -> list[Any]:
    """The values of an option by which a layer's kind is chosen."""
    return [kind.options[option] for kind in of_layer(layer)]


def chosen(layer: str, **options: Any) -> Kind:
    """The kind of a layer with these options."""
    return next(kind for kind in of_layer(layer) if kind.suits(options))
