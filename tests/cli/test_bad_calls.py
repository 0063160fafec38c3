"""Calls that cannot be meant: every one ends with exit code 2 or 1, one line that names the option or the file, and no file."""

import inspect

import pytest

from benchmarks import bad_calls
from benchmarks.bad_call_table import CALLS, Case
from benchmarks.bad_calls import Outcome, attempt
from lfjax.cli import main, ranges, xrf
from lfjax.errors import ParameterError


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calls")
    bad_calls.make_inputs(folder)
    return folder


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", CALLS, ids=[case.line for case in CALLS])
def test_a_bad_call_is_refused_in_one_line(case, inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("LFJAX_CACHE", str(tmp_path / "cache"))
    assert not attempt(case.line, inputs).faults(case)
    assert not (tmp_path / "cache").exists()  # no PSF was computed


def test_the_table_has_every_command_and_each_call_once():
    lines = [case.line for case in CALLS]
    named = {" ".join(line.split()[:number]) for line in lines for number in (1, 2)}
    assert {name for name, *_ in main.COMMANDS} | {f"xrf {name}" for name, *_ in xrf.COMMANDS} <= named
    assert len(set(lines)) == len(lines) >= 100


def test_faults_are_seen():
    case = Case("psf -o p.txt", "--output")
    assert not Outcome(2, ("lfjax: --output = 'p.txt'",), ()).faults(case)
    for wrong in (
        Outcome(0, ("--output",), ()), Outcome(-1, ("--output",), ()), Outcome(2, ("--output", "more"), ()),
        Outcome(2, ("no such file",), ()), Outcome(2, ("--output",), ("p.txt",)),
    ):  # fmt: skip
        assert len(wrong.faults(case)) == 1


def test_every_option_in_the_tables_of_ranges_is_one_of_a_command():
    there = set()
    for _, function, _ in (*main.COMMANDS, *xrf.COMMANDS):
        hints = inspect.get_annotations(ranges.ranged(function), eval_str=True)
        there |= {ranges.option_name(name, hint) for name, hint in hints.items()}
    assert set(ranges.SPECIAL) | set(ranges.ZERO_TOO) | set(ranges.SIGNED) <= there


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_no_number_of_an_option_is_nan_infinite_or_huge(value):
    for option in ("--radius", *ranges.ZERO_TOO, *ranges.SIGNED, *(set(ranges.SPECIAL) - {"--bleach-s"})):
        with pytest.raises(ParameterError, match=option):
            ranges.check_value(option, value)
