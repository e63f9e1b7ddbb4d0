"""Files as nobody should write them: thousands of damaged CSV files, PROBLEM.toml and mapped .npz.

    python demos/benchmarks/fuzz.py                       # ten thousand of each
    python demos/benchmarks/fuzz.py --cases 500 --seed 1  # fewer, other ones; keeps nothing

A case is a file, often a good one with bytes taken out, put in, repeated or exchanged, read as the
command line reads it. It is either read, to finite numbers of the right shapes, or refused by a
ValueError of one short sentence, which the command line turns into exit code 2. Anything else is a
failure: another exception, memory without bound, a table that pandas or polars reads otherwise than
the reader without them, new rows that are not read as those of training were. Each format is one
function in `CHECKS`; Hypothesis shrinks a failure to the smallest file that still shows it. The
counts are kept in fuzz.json, and the test suite runs a few hundred of such cases.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import platform
import resource
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hamshoot as hs
from hamshoot.command.config import SECTIONS, read_config
from hamshoot.methods.descent.optimizers import optimizer_named
from hamshoot.problem import frames
from hamshoot.problem.preparation import Preparation
from hamshoot.problem.readers import Table, read_csv, split_rows
from hamshoot.problem.sheets import read_sheet
from hamshoot.study.solve import METHODS, check_method

RESULTS = Path(__file__).with_name("fuzz.json")
#: Address space of the whole run; what promises more is to be refused before it is asked for.
MOST_BYTES = 8_000_000_000
#: Characters of the longest sentence, without the path of the file.
LONGEST = 400

# -- damage ----------------------------------------------------------------------------------------

SPECIAL = b"\x00\xff\"'\n\r\t,;|=[]{}.-_#\\\xef\xbb\xbf\xe2\x88\x92"


@st.composite
def damaged(draw: Callable, whole: st.SearchStrategy[bytes]) -> bytes:
    """Bytes of a file with up to four pieces taken out, put in, repeated or exchanged."""
    content = draw(whole)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2, 3, 4]))):
        a, b = sorted(draw(st.tuples(*2 * [st.integers(0, len(content))])))
        b = min(b, a + 40)
        piece = draw(st.one_of(
            st.just(b""), st.sampled_from([bytes([c]) for c in SPECIAL]), st.binary(max_size=8),
            st.just(2 * content[a:b])))
        content = content[:a] + piece + content[b:]
    return content


# -- CSV -------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(-1000, 1000).map(str), st.floats(-1e6, 1e6).map(repr),
    st.floats(allow_nan=False, allow_infinity=False).map(repr))
WORDS = st.sampled_from(["oak", "elm", "ash", "a, b", "x;y", 'say "so"', "Köln", "true", "10-20"])
ODD = st.one_of(
    st.sampled_from(["", " ", "NA", "nan", "inf", "-inf", "1e999", "3,14", "1.234,5", "2024_01",
                     "2024-01-05", "5.1.2024", "12:30", "5 %", "€ 3", "−5", "0x10", "1" * 400,
                     "x" * 700, "a\nb", "1,000", "None", "?"]),
    st.text(max_size=12))
OPTIONS = st.fixed_dictionaries({}, optional={
    "targets": st.one_of(st.integers(-1, 3),
                         st.sampled_from(["c0", ["c1"], ["c0", "c1"], [], "?"])),
    "drop": st.sampled_from([[], ["c0"], ["c2", "?"], [""]]),
    "separator": st.sampled_from([",", ";", "\t", "|", ":", ";;", ""]),
    "decimal": st.sampled_from([".", ",", ";"]),
    "missing": st.sampled_from(["refuse", "mean", "median", "zero"]),
    "categories": st.sampled_from(["refuse", "one-hot", ["c0"], ["c1", "c2"], "all"]),
    "classes": st.booleans()})


@st.composite
def tables(draw: Callable, separator: str, comma: bool) -> bytes:
    """A CSV file: columns of numbers, words or anything, in one of several forms."""
    rows, count = draw(st.integers(2, 12)), draw(st.integers(2, 5))
    odd = draw(st.sampled_from([0, 0, 0, 1, 10]))  # of a hundred cells
    columns = []
    for k in range(count):
        usual = draw(st.sampled_from([NUMBERS, NUMBERS, WORDS]))
        cells = [draw(ODD if draw(st.integers(1, 100)) <= odd else usual) for _ in range(rows)]
        name = draw(ODD) if draw(st.integers(1, 100)) <= odd else f"c{k}"
        columns.append([name, *cells])
    quoted = draw(st.booleans())
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\n\n", separator + "\n"]))

    def cell(text: str) -> str:
        text = text.replace(".", ",") if comma else text
        if quoted or separator in text or '"' in text or "\n" in text:
            return '"' + text.replace('"', '""') + '"'
        return text

    text = end.join(separator.join(map(cell, row)) for row in zip(*columns, strict=True)) + end
    encoding = draw(st.sampled_from(5 * ["utf-8"] + ["utf-8-sig", "utf-16", "cp1252"]))
    return text.encode(encoding, errors="replace")


@st.composite
def csv_cases(draw: Callable) -> tuple[bytes, dict[str, Any], float]:
    """A file, options that fit it and, of some cases, others; and what is held out."""
    separator = draw(st.sampled_from([",", ",", ";", "\t", "|"]))
    comma = separator != "," and draw(st.booleans())
    options: dict[str, Any] = {"decimal": ","} if comma else {}
    if draw(st.integers(0, 3)):
        options["categories"] = "one-hot"
    if draw(st.booleans()):
        options["missing"] = draw(st.sampled_from(["mean", "median"]))
    if draw(st.integers(0, 3)) == 0:
        options |= draw(OPTIONS)
    content = draw(damaged(tables(separator, comma)))
    return content, options, draw(st.sampled_from([0.0, 0.0, 0.25, 0.5]))


def check_csv(case: tuple[bytes, dict[str, Any], float], folder: Path) -> str:
    """One CSV file: how it ended."""
    content, options, fraction = case
    path = folder / "t.csv"
    path.write_bytes(content)
    table = _answer(lambda: read_csv(path, **options), path)
    others = [_through(package, path, options) for package in ("_by_pandas", "_by_polars")]
    for other in others:
        _same(table, other)
    if isinstance(table, str):
        return "refused"
    whole = _answer(lambda: split_rows(table, fraction, seed=0), path)
    if isinstance(whole, str):
        return "read, not split"
    _finite(whole)
    # What was fitted is kept as JSON and reads the rows of training as they were.
    entry = json.loads(json.dumps(whole.preparation.to_dict()))
    again = _answer(lambda: Preparation.from_dict(entry).apply(
        read_sheet(path, options.get("separator"), options.get("decimal", "."))), path)
    if fraction == 0:
        np.testing.assert_array_equal(again, whole.X)
    else:
        assert isinstance(again, str) or again.shape[1] == whole.X.shape[1]
    by_frames = sum(other is not None for other in others)
    return f"read, by {by_frames} of pandas and polars too" if by_frames else "read"


def _through(package: str, path: Path, options: dict[str, Any]) -> Table | str | None:
    """The same file by pandas or polars alone; None where that leaves it to the exact reader."""
    kept = frames.LARGE_BYTES, frames._by_pandas, frames._by_polars
    frames.LARGE_BYTES = 0
    one = getattr(frames, package)
    frames._by_pandas = frames._by_polars = one
    try:
        large = frames.read_large(path, options.get("separator"), options.get("decimal", "."))
        return None if large is None else _answer(lambda: read_csv(path, **options), path)
    except ValueError:  # of the options alone
        return None
    finally:
        frames.LARGE_BYTES, frames._by_pandas, frames._by_polars = kept


def _same(exact: Table | str, other: Table | str | None) -> None:
    """Assert that both answers are one."""
    if other is None or exact == other:
        return
    assert isinstance(exact, Table), f"refused ({exact}), but read by way of a frame"
    assert isinstance(other, Table), f"read, but refused by way of a frame ({other})"
    np.testing.assert_array_equal(exact.X, other.X)
    np.testing.assert_array_equal(exact.Y, other.Y)
    assert exact.input_names == other.input_names
    assert exact.classes == other.classes
    assert exact.preparation == other.preparation


def _finite(table: Table) -> None:
    for X, Y in ((table.X, table.Y), (table.X_test, table.Y_test)):
        if X is None:
            continue
        assert X.ndim == Y.ndim == 2
        assert len(X) == len(Y)
        assert np.isfinite(X).all()
        assert np.isfinite(Y).all()
    assert table.X.shape[1] == len(table.input_names)
    assert table.Y.shape[1] == len(table.target_names)


# -- PROBLEM.toml ----------------------------------------------------------------------------------

GOOD_TABLE = "a,b,y\n" + "".join(f"{i},{7 * i % 11},{3 * i % 5}\n" for i in range(20))
SOLVE = sorted({f.name for method in METHODS.values() for f in fields(method)})
SIZE, SHARE = st.integers(1, 12).map(str), st.floats(1e-3, 0.9).map(lambda v: f"{v:.6g}")
WORD = st.sampled_from(["true", "false", '"path"', '"quick"', '"columns"', '"t.csv"', "[]", '"y"',
                        "[0.5, 1e-3, 0.5]", '"equidistant"', '"single_shooting"'])
#: Values that a key takes; other keys get sizes, shares and words.
FITTING: dict[str, st.SearchStrategy[str]] = {
    "targets": st.sampled_from(['"y"', '["y"]', "1", "2", '["a", "y"]']),
    "drop": st.sampled_from(['["a"]', "[]"]), "standardize": st.sampled_from(["true", '"common"']),
    "test_fraction": SHARE, "separator": st.just('","'), "decimal": st.just('"."'),
    "missing": st.sampled_from(['"mean"', '"median"', '"refuse"']),
    "categories": st.sampled_from(['"one-hot"', '"refuse"', '["b"]']),
    "classes": st.sampled_from(["true", "false"]),
    "teacher": st.sampled_from(["{ dims = [3, 2, 3], samples = 8 }", "{ }"]),
    "effective_depth": SHARE, "weight_decay": SHARE, "width": SIZE, "seed": SIZE,
    "activation": st.sampled_from(['"relu"', '"linear"']), "bias": st.just("true"),
    "lift": st.just('"orthonormal"'), "readout": st.just('"orthonormal"'),
    "layers": SIZE, "tol": SHARE, "max_iter": SIZE, "time_limit": SHARE, "noise": SHARE,
    "start": st.sampled_from(['"path"', '"identity"']), "starts": SIZE, "workers": SIZE,
    "effort": st.sampled_from(['"quick"', '"default"']), "reheats": SIZE, "memory": SIZE,
    "stage_iter": SIZE, "polish": st.just("false"), "method": st.just('"single_shooting"'),
    "optimizer": st.just('"adam"'), "epochs": SIZE, "rate": SHARE, "rates": st.just("[0.1, 0.01]"),
    "schedule": st.just('"cosine"'), "beta1": SHARE, "beta2": SHARE}
WILD = st.one_of(
    st.sampled_from(["nan", "inf", "-1", "0", "1e308", "1e-320", "1" + 400 * "0", "9" * 19,
                     "4294967296", '"' + "x" * 600 + '"', "[]", "[[[]]]", "1979-05-27",
                     "07:32:00", "[1, \"a\"]", "{ dims = [1e9], samples = 1 }",
                     "{ dims = [1000000000, 2], samples = 1000000000 }", '""', '"\\u0000"',
                     '"/dev/null"', '"../t.csv"', '"t.npz"', "[" * 2000 + "]" * 2000]),
    st.integers().map(str), st.floats().map(repr).map(lambda v: v.replace("e+", "e")),
    st.text(max_size=8).map(json.dumps))


@st.composite
def problems(draw: Callable) -> bytes:
    """A PROBLEM.toml whose data are a good table or a teacher, with any keys and values."""
    names = {name: sorted(keys) for name, keys in SECTIONS.items() if name != "teacher"}
    names["solve"] = [*SOLVE, "method"]
    odd = draw(st.sampled_from([0, 0, 10, 40]))  # of a hundred values
    lines = []
    for section in draw(st.permutations(["data", "problem", "solve", "descent"])):
        lines.append(f"[{section}]")
        known = [key for key in names[section] if odd or key in FITTING]
        keys = draw(st.lists(st.sampled_from(known), max_size=4, unique=True))
        if section == "data" and draw(st.integers(0, 9)):
            lines.append('file = "t.csv"')
            keys = [key for key in keys if key not in ("file", "teacher")]
        for key in keys:
            wild = draw(st.integers(1, 100)) <= odd
            usual = FITTING.get(key, st.one_of(SIZE, SHARE, WORD))
            lines.append(f"{key} = {draw(WILD if wild else usual)}")
        if draw(st.integers(1, 100)) <= odd / 2:
            lines.append(f"{draw(st.text('abcxyz_.', min_size=1, max_size=8))} = {draw(WILD)}")
    return "\n".join(lines).encode()


TOML_CASES = damaged(problems())


def check_toml(content: bytes, folder: Path) -> str:
    """One PROBLEM.toml: read, and the methods that it names built and checked."""
    table, path = folder / "t.csv", folder / "p.toml"
    table.write_text(GOOD_TABLE)
    path.write_bytes(content)

    def read() -> Any:
        config = read_config(path)
        check_method(config.problem, config.method, config.layers, config.solve)
        descent = dict(config.descent)
        descent.pop("steps", None)
        optimizer_named(descent.pop("optimizer", "adam"), descent)
        return config

    config = _answer(read, path)
    if isinstance(config, str):
        return "refused"
    problem = config.problem
    assert np.isfinite(problem.initial_state).all()
    assert np.isfinite(problem.targets).all()
    assert problem.initial_state.shape == (problem.width, problem.n_samples)
    return "read"


def _answer(read: Callable[[], Any], path: Path) -> Any:
    """What came, or the sentence of the refusal, which has to be a short one."""
    try:
        return read()
    except UnicodeError:  # a ValueError too, but of no reader that knows what it does
        raise AssertionError("bytes that were not expected") from None
    except ValueError as error:
        sentence = str(error).replace(f"{path.parent}/", "")
    assert 0 < len(sentence) <= LONGEST, f"{len(sentence)} characters: {sentence}"
    return sentence


# -- mapped arrays ---------------------------------------------------------------------------------

SHAPES = st.sampled_from(["(6, 3)", "(6,)", "(1" + 30 * "0" + ",)", "(-3, 2)", "(1.5,)", "('a',)",
                          "(10000000000, 3)", "()", "6", "(6, 3"])
TYPES = st.sampled_from(["'<f8'", "'<f8'", "'|O'", "'<c16'", "'<U5'", "[('a', '<f8')]", "'M8[s]'",
                         "3", "'zz'", "None", "'<i4'", "'|b1'"])


@st.composite
def archives(draw: Callable) -> bytes:
    """An .npz file as `numpy.savez` writes it, or of headers that no array has."""
    file = io.BytesIO()
    if draw(st.booleans()):
        np.savez(file, X=np.arange(18.0).reshape(6, 3), Y=np.arange(6.0))
        return file.getvalue()
    with zipfile.ZipFile(file, "w", draw(st.sampled_from(3 * [zipfile.ZIP_STORED] + [
            zipfile.ZIP_DEFLATED]))) as archive:
        for name in draw(st.lists(st.sampled_from(["X.npy", "Y.npy", "../X.npy", "X"]), min_size=1,
                                  max_size=3, unique=True)):
            text = (f"{{'descr': {draw(TYPES)}, 'fortran_order': {draw(st.booleans())}, "
                    f"'shape': {draw(SHAPES)}, }}").encode()
            head = text + b" " * (-(len(text) + 11) % 64) + b"\n"
            version = draw(st.sampled_from([b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x09\x00"]))
            size = len(head).to_bytes(4 if version[0] == 2 else 2, "little")
            archive.writestr(name, b"\x93NUMPY" + version + size + head + bytes(144))
    return file.getvalue()


def check_mapped(content: bytes, folder: Path) -> str:
    """One .npz file whose arrays are to stay in it: read, checked and described as a problem."""
    path = folder / "a.npz"
    path.write_bytes(content)

    def read() -> Any:
        return hs.TrainingProblem.from_npz(path, mmap=True, effective_depth=1.0, weight_decay=0.1,
                                           width=3, standardize=False)

    problem = _answer(read, path)
    if isinstance(problem, str):
        return "refused"
    assert np.isfinite(problem.initial_state).all()
    assert problem.targets.shape == (problem.d_out, problem.n_samples)
    return "read"


# -- runs ------------------------------------------------------------------------------------------

#: By format: the cases, and what becomes of one.
CHECKS: dict[str, tuple[st.SearchStrategy, Callable[[Any, Path], str]]] = {
    "csv": (csv_cases(), check_csv), "toml": (TOML_CASES, check_toml),
    "mapped": (damaged(archives()), check_mapped)}


def run(name: str, cases: int, seed: int) -> Counter:
    """So many cases of a format; how they ended, or the failure, shrunk, as an exception."""
    strategy, check = CHECKS[name]
    ended: Counter = Counter()
    with tempfile.TemporaryDirectory() as folder:

        @hypothesis.seed(seed)
        @settings(max_examples=cases, deadline=None, database=None,
                  suppress_health_check=list(HealthCheck))
        @given(strategy)
        def one(case: Any) -> None:
            ended[check(case, Path(folder))] += 1

        one()
    return ended


def main() -> None:
    """All formats; the counts are kept after a whole run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=
                                     argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", nargs="+", choices=list(CHECKS), default=list(CHECKS))
    asked = parser.parse_args()
    logging.getLogger("hamshoot").setLevel(logging.ERROR)  # hints are not what is looked for
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    record: dict[str, Any] = {
        "date": date.today().isoformat(), "command": "python demos/benchmarks/fuzz.py",
        "seed": asked.seed, "machine": platform.machine(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__,
                     "hypothesis": hypothesis.__version__, "hamshoot": hs.__version__},
        "formats": {}}
    for name in asked.formats:
        began = time.process_time()
        ended = run(name, asked.cases, asked.seed)
        record["formats"][name] = {"cases": sum(ended.values()), "failures": 0,
                                   **dict(sorted(ended.items())),
                                   "cpu_seconds": round(time.process_time() - began, 1)}
        print(name, record["formats"][name], flush=True)
    whole = asked.cases >= 10_000 and set(asked.formats) == set(CHECKS)
    if whole:
        RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
