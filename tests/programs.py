"""Programs that tests run in a Python of their own."""

import shutil
import subprocess
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "fastrnn"

# Both call one kernel, besides the shared functions.
LOSS = """
import numpy as np
from fastrnn import functional
print(repr(functional.cross_entropy(np.arange(12, dtype="float32").reshape(3, 4), np.array([0, 1, 2]))[0]))
"""

ROWS = """
import numpy as np
from fastrnn import functional
print(functional.embedding(np.array([2, 0]), np.arange(6, dtype="float32").reshape(3, 2))[0].astype(int).tolist())
"""


def output(result: subprocess.CompletedProcess[str]) -> str:
    """What a program printed that is expected to end well."""
    assert result.returncode == 0, f"exit status {result.returncode}: {result.stderr}"
    return result.stdout.strip()


def copy_of_fastrnn(folder: Path) -> Path:
    """The package's sources, in a folder of the test's own."""
    shutil.copytree(PACKAGE, folder / "fastrnn", ignore=shutil.ignore_patterns("__pycache__"))
    return folder / "fastrnn"
