"""What a run without paths does: the tests on all cores, or with --benchmark-only the benchmarks, one after another."""

import pytest


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads its options
def pytest_cmdline_main(config):
    if config.args_source is not config.ArgsSource.TESTPATHS or hasattr(config, "workerinput"):
        return
    if config.getoption("benchmark_only", False):
        config.args = ["bench"]
    elif config.getoption("numprocesses", 0) is None:
        config.option.numprocesses = "auto"
        config.option.dist = "worksteal"  # far apart in the files, so that two rarely compile the same at once
