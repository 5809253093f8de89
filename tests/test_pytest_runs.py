"""What pytest runs at the root: the tests, spread over the cores, or the benchmarks, with their extra alone."""

import pytest

RUN = "import sys, pytest\n{before}\nsys.exit(pytest.main({arguments!r}.split()))"
WITHOUT = "sys.modules |= dict.fromkeys(('hypothesis', 'matplotlib', 'mpmath', 'sklearn', 'torch'))"


@pytest.mark.parametrize("folder", ["", "bench"])
def test_benchmarks_run_with_their_extra_alone(run_python, folder):
    arguments = f"{folder} --benchmark-only -k import -p pytest_benchmark.plugin -p no:cacheprovider"
    program = RUN.format(before=WITHOUT, arguments=arguments)
    result = run_python(program, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", PYTEST_XDIST_WORKER="")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 passed" in result.stdout


def test_a_plain_run_spreads_the_tests_alone(run_python):
    program = RUN.format(before="", arguments="--ignore-glob=tests/test_*.py -p no:cacheprovider")
    result = run_python(program, PYTEST_XDIST_AUTO_NUM_WORKERS="2", PYTEST_XDIST_WORKER="")
    assert result.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, result.stdout + result.stderr
    assert "2 workers [0 items]" in result.stdout
