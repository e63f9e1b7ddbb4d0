"""Damaged tables and problems are read or refused in a sentence; see demos/benchmarks/fuzz.py."""

import importlib.util
import logging
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "demos" / "benchmarks" / "fuzz.py"
CASES, SEED = 200, 20


@pytest.fixture(scope="module")
def fuzz():
    for package in ("hypothesis", "pandas", "polars"):
        pytest.importorskip(package)
    spec = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["csv", "toml", "mapped"])
def test_damaged_files_are_read_or_refused_in_a_sentence(fuzz, name, caplog):
    caplog.set_level(logging.CRITICAL, "hamshoot")
    ended = fuzz.run(name, CASES, SEED)
    assert sum(ended.values()) >= CASES
    assert sum(count for how, count in ended.items() if how.startswith("read")) >= CASES / 20
    assert ended["refused"] >= CASES / 20


def test_a_planted_fault_is_noticed(fuzz, monkeypatch):
    """Of the reader by pandas: a number in its tenth digit."""
    by_pandas = fuzz.frames._by_pandas

    def planted(path, header, separator, decimal):
        columns = by_pandas(path, header, separator, decimal)
        for values in (columns or {}).values():
            if not isinstance(values, list):
                values[0] += 1e-9
        return columns

    monkeypatch.setattr(fuzz.frames, "_by_pandas", planted)
    with pytest.raises(AssertionError, match="Arrays are not equal"):
        fuzz.run("csv", 100, SEED)


def test_another_exception_than_a_refusal_is_noticed(fuzz, monkeypatch, tmp_path):
    def planted(*_, **__):
        raise KeyError("X")

    monkeypatch.setattr(fuzz, "read_csv", planted)
    with pytest.raises(KeyError):
        fuzz.check_csv((b"a,y\n1,2\n3,4\n", {}, 0.0), tmp_path)
