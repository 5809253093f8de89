"""Types that users see: mypy runs over a program of theirs, and over one that uses everything wrongly."""

import os
import subprocess
import sys
from pathlib import Path

import fastrnn

ROOT = Path(__file__).parent.parent
PROGRAM = ROOT / "tests" / "typed_program.py"

WRONG = """
import numpy as np
from fastrnn import LSTM, Packed, models, optim
x = np.zeros((5, 3, 4), "float32")
lstm = LSTM(4, 8)
LSTM("4", 8)  # wrong
lstm(x, length=[5])  # wrong
lstm.hiden_size  # wrong
y: str = lstm(x)[0]  # wrong
z: Packed = lstm.vjp(x)[0][0]  # wrong
optim.Adam(lstm, lr=1e-3)  # wrong
models.SequenceTagger(num_classes=2, input_size=4, cells="gru")  # wrong
"""


def test_a_users_program_is_typed(tmp_path):
    (tmp_path / "wrong.py").write_text(WRONG)
    arguments = ["--strict", "--follow-imports=silent", "--cache-dir=cache", str(PROGRAM), "wrong.py"]
    result = subprocess.run(
        [sys.executable, "-m", "mypy", *arguments],
        env=os.environ | {"MYPYPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    found = {tuple(line.split(":")[:2]) for line in result.stdout.splitlines() if ": error:" in line}
    wrong = {("wrong.py", str(n)) for n, line in enumerate(WRONG.splitlines(), 1) if line.endswith("# wrong")}
    assert found == wrong, result.stdout + result.stderr


def test_checkers_are_told_that_there_are_types():
    assert Path(fastrnn.__file__).with_name("py.typed").exists()
