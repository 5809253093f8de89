"""Pictures: what unrolling does, gradients through time, curves of training, units over a text.

Figures need matplotlib, the extra `plot`; DOT text, HTML and text for the terminal need nothing.
"""

from fastrnn.plot.dot import unrolled_dot
from fastrnn.plot.drawing import unrolled
from fastrnn.plot.heat import Activations, activations
from fastrnn.plot.lines import curves, gradient_flow
from fastrnn.plot.style import save

__all__ = ["Activations", "activations", "curves", "gradient_flow", "save", "unrolled", "unrolled_dot"]
