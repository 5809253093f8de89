"""A callback for Lightning: a model is fast while a Trainer fits, validates, tests or predicts.

from fastrnn.torch.lightning import Accelerate

trainer = Trainer(callbacks=[Accelerate()])
"""

from importlib import import_module
from typing import Any

from torch import nn

from fastrnn.torch.replace import Report, accelerate, restore


def _callbacks() -> list[type]:
    """What a callback is to each of Lightning's two packages; a Trainer takes those of its own package only."""
    found = []
    for name in ("lightning.pytorch", "pytorch_lightning"):
        try:
            found.append(import_module(name).Callback)
        except ModuleNotFoundError as error:
            if error.name not in (name, name.partition(".")[0]):
                raise
    if not found:
        raise ImportError("fastrnn.torch.lightning: needs Lightning: pip install lightning")
    return found


class Accelerate(*_callbacks()):  # type: ignore[misc] # known when it runs
    """`accelerate` before anything runs, `restore` behind it, of what was not fast before.

    Parameters
    ----------
    cells : RNNCell, GRUCell and LSTMCell, too; see `accelerate`

    `report` is what `accelerate` said, None before. It sees the model as it is when training starts, on its device, so
    also what `setup` and `configure_model` build. Checkpoints hold what they hold without it.

    Raises ImportError, when this file is imported: `fastrnn.torch.lightning: needs Lightning: pip install lightning`.
    """

    def __init__(self, cells: bool = False) -> None:
        super().__init__()
        self.cells = cells
        self.report: Report | None = None
        self._made: list[nn.Module] = []

    def on_fit_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """The modules become fast, unless they are so already: fit validates, too."""
        if not self._made:
            self.report = accelerate(pl_module, self.cells)
            names = self.report.replaced
            self._made = [m for name, m in pl_module.named_modules() if (name or type(m).__name__) in names]

    on_validation_start = on_test_start = on_predict_start = on_fit_start

    def teardown(self, trainer: Any, pl_module: nn.Module, stage: str) -> None:
        """They are torch's again."""
        while self._made:
            restore(self._made.pop())

    def on_exception(self, trainer: Any, pl_module: nn.Module, exception: BaseException) -> None:
        """So they are where training fails."""
        self.teardown(trainer, pl_module, "")
