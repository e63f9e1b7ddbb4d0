"""PROBLEM.toml: read, check, and turn into a problem and the options of methods."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hamshoot.problem.hints import log_hints
from hamshoot.problem.readers import read_npz, split_rows, teacher_data
from hamshoot.problem.stored_files import is_url
from hamshoot.problem.stored_tables import read_table
from hamshoot.problem.training_problem import TrainingProblem
from hamshoot.support.checks import MOST_REPEATED, brief, check_regular

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

TEMPLATE = """\
# A training problem for hamshoot. Lines that begin with # are comments; values shown after
# "default" are what a missing line means. Paths are relative to this file.

[data]
file = "train.csv"          # CSV with a header row, Parquet, or .npz or Zarr holding X and Y; or
                            # a URL of fsspec, as "s3://bucket/train.parquet"
targets = 1                 # how many of the last columns are targets, or names: ["price"]
                            # one target column of strings is a class (one-hot)
# drop = ["id"]             # columns to leave out
# weights = "count"         # column of weights of the samples, no input
# lazy = true               # of Parquet: rows stay in the file (default from 500 MB up)
# classes = true            # a target column of numbers is a class too
# separator = ";"           # of cells (default: comma, semicolon, tab or |, as the header has it)
# decimal = ","             # decimal comma (default ".")
# missing = "mean"          # fills gaps in the inputs; "mean", "median" or "refuse" (default)
# categories = "one-hot"    # inputs of words as 0/1 columns (default "refuse"), or which: ["city"]
standardize = true          # inputs and targets to mean 0, deviation 1 (default true)
test_fraction = 0.2         # rows held out for the test error (default 0)
# teacher = { dims = [6, 2, 6], samples = 30, test_samples = 1000 }   # in place of file

[problem]
effective_depth = 3.0       # the leak L̃ > 0, which plays the role of depth (default 3)
weight_decay = 0.003        # λ > 0, weight of the L2 term (default 0.001 times the depth)
# width = 8                 # neurons of a hidden layer (default: the largest data dimension, >= 8)
activation = "relu"         # "relu", "leaky_relu" (with negative_slope = 0.01), "smooth_relu"
                            # (with epsilon = 0.1), "tanh", "softplus", "gelu" or "linear"
# loss = "squared"          # or "huber" (with huber_delta = 1.0), "cross_entropy" for classes
bias = true
# lift = "embedding"        # "embedding" or "orthonormal"; readout likewise
# lift_decay = 0.01         # the lift is learned, with this weight decay; readout_decay likewise
seed = 0                    # of random lifts, and of the test rows

[solve]
method = "auto"             # "auto", "multiple_shooting", "single_shooting", "indirect"
layers = 20                 # L of the network; needs L > effective_depth
# tol = 1e-8                # each method has a default
# time_limit = 600          # seconds
# effort = "default"        # how long to search for a good basin: "quick", "default", "thorough"
# workers = 2               # threads of the search (default a core each)
# start = "path"            # "path", "identity" or "random": one local solve from it, no search
# starts = 1                # best of that many starts (default: as effort says)
seed = 0

[validate]                  # of "hamshoot solve --validate", which chooses on held-out rows
# held_out = 0.2            # share of the training rows, drawn by the seed of [solve], or "test":
                            # the rows of test_fraction
# weight_decay = [0.001, 0.003, 0.01]   # λ to try (default: a tenth to ten times the above, five)
# effective_depth = [1.5, 3, 6]         # L̃ (default: half, once and twice the above)
# width = [8, 16]                       # (default: once and twice the above, and half if it fits)

[sweep]                     # of "hamshoot sweep", where --over does not say it
# effective_depth = [1, 2, 4, 7]        # all with all; likewise weight_decay, epsilon, width
# search = 3                # points that begin with a search, or "all"
# folds = true              # follow branches of geodesics through folds
# predictor = "secant"      # or "tangent", "none": what a step from a neighbour begins with

[descent]                   # the baseline of "hamshoot compare"
optimizer = "adam"          # "adam" (then SGD, as in the paper) or "sgd"
epochs = 5000
# rate = 0.03               # default: the best of a grid
# schedule = "decay"        # of the rate: "constant", "decay" (at last) or "cosine"; default: the
                            # best of these, tried with every rate (schedules = ["decay", ...])
steps = "equidistant"       # layer steps: "equidistant", "irregular" or "adaptive"
"""

BUILT_IN: dict[str, dict[str, Any]] = {
    "data": {"teacher": {"dims": [6, 2, 6], "samples": 30, "test_samples": 1000}},
    "problem": {"effective_depth": 7.0, "width": 6, "activation": "relu", "seed": 0},
    "solve": {"layers": 20},
    "descent": {},
}


@dataclass(frozen=True)
class Key:
    """One key of a section: what it takes, and a test for it."""

    expected: str
    fits: Callable[[Any], bool]


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and _is_double(value)


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_double(value: Any) -> bool:
    """Whether it fits a double; integers in TOML may have any number of digits."""
    return not isinstance(value, int) or abs(value) <= sys.float_info.max


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


NUMBER = Key("a number", _number)
INTEGER = Key("an integer", _integer)
TEXT = Key("a string", _text)
TEXTS = Key("a list of strings", _texts)
FLAG = Key("true or false", lambda v: isinstance(v, bool))
NUMBERS = Key("a list of numbers", lambda v: isinstance(v, list) and all(map(_number, v)))
INTEGERS = Key("a list of integers", lambda v: isinstance(v, list) and all(map(_integer, v)))
CHOICES = Key("a word or a list of column names", lambda v: _text(v) or _texts(v))
SHARE = Key("a share in (0, 1) or 'test'", lambda v: v == "test" or (_number(v) and 0 < v < 1))
SEARCH = Key("a number of points or 'all'", lambda v: v == "all" or _integer(v))
NAMES = Key("column names or an integer", lambda v: _texts(v) or _text(v) or _integer(v))
TABLE = Key("a table { dims = [...], samples = ... }", lambda v: isinstance(v, dict))
STEPS = Key("a name or a list of numbers", lambda v: _text(v) or NUMBERS.fits(v))
SCALING = Key("true, false, 'columns', 'varying' or 'common'", lambda v: isinstance(v, (bool, str)))

#: Known keys of each section. [solve] and [descent] hand theirs to the method object, which checks
#: names and values itself; None lets a key through to it.
SECTIONS: dict[str, dict[str, Key | None]] = {
    "data": {"file": TEXT, "targets": NAMES, "drop": TEXTS, "standardize": SCALING,
             "test_fraction": NUMBER, "teacher": TABLE, "separator": TEXT, "decimal": TEXT,
             "missing": TEXT, "categories": CHOICES, "classes": FLAG, "weights": TEXT,
             "lazy": FLAG},
    "teacher": {"dims": INTEGERS, "samples": INTEGER, "test_samples": INTEGER},
    "problem": {"effective_depth": NUMBER, "weight_decay": NUMBER, "width": INTEGER,
                "activation": TEXT, "epsilon": NUMBER, "negative_slope": NUMBER, "bias": FLAG,
                "loss": TEXT, "huber_delta": NUMBER,
                "lift": TEXT, "readout": TEXT, "lift_decay": NUMBER, "readout_decay": NUMBER,
                "seed": INTEGER},
    "validate": {"held_out": SHARE, "weight_decay": NUMBERS, "effective_depth": NUMBERS,
                 "width": INTEGERS},
    "sweep": {"effective_depth": NUMBERS, "weight_decay": NUMBERS, "epsilon": NUMBERS,
              "width": INTEGERS, "search": SEARCH, "folds": FLAG,
              "predictor": TEXT},
    "descent": {"optimizer": TEXT, "epochs": INTEGER, "rate": NUMBER, "rates": NUMBERS,
                "schedule": TEXT, "schedules": TEXTS, "finalists": INTEGER, "sgd_epochs": INTEGER,
                "sgd_rate": NUMBER, "momentum": NUMBER, "beta1": NUMBER, "beta2": NUMBER,
                "epsilon": NUMBER, "steps": STEPS},
}


#: Keys of [data] that say how a table is read.
OF_TABLES = ("targets", "drop", "separator", "decimal", "missing", "categories", "classes",
             "weights", "lazy")
#: Sections whose keys are checked here, in the order of messages.
PROBLEM_SECTIONS = ("data", "problem", "validate", "sweep", "descent")
#: Keys of [validate] that `hamshoot.validate` calls otherwise.
PLURALS = {"weight_decay": "weight_decays", "effective_depth": "effective_depths",
           "width": "widths"}


@dataclass(frozen=True, eq=False)
class Config:
    """A checked PROBLEM.toml.

    Attributes
    ----------
    problem : TrainingProblem
    method : str
    layers : int or None
    solve : dict
        Further options of the method.
    descent : dict
        Options of the optimiser, and `steps`.
    validate : dict
        Arguments of `hamshoot.validate`.
    sweep : dict
        Of `hamshoot.sweep`: what it is over by name, `search`, `folds`, `predictor`.
    """

    problem: TrainingProblem
    method: Any = "auto"  # a string, which the verbs check
    layers: int | None = None
    solve: dict[str, Any] = field(default_factory=dict)
    descent: dict[str, Any] = field(default_factory=dict)
    validate: dict[str, Any] = field(default_factory=dict)
    sweep: dict[str, Any] = field(default_factory=dict)


def read_config(path: str | Path | None, settings: Sequence[str] = ()) -> Config:
    """Read PROBLEM.toml, or the built-in problem when `path` is None.

    Parameters
    ----------
    path : path or None
    settings : sequence of str
        Overrides "section.key=value"; values are TOML, and plain words need no quotes.

    Raises
    ------
    ValueError
        In one sentence: a missing or malformed file, unknown sections and keys, wrong values.
    """
    tree = _built_in() if path is None else _read_toml(Path(path))
    for setting in settings:
        _override(tree, setting)
    _check_sections(tree)
    base = Path.cwd() if path is None else Path(path).resolve().parent
    problem = log_hints(_problem(tree.get("data", {}), tree.get("problem", {}), base))
    options = dict(tree.get("solve", {}))
    method = options.pop("method", "auto")
    if not isinstance(method, str):
        raise ValueError(f"solve.method: expected a name, got {brief(method)}")
    validate = {PLURALS.get(name, name): value
                for name, value in tree.get("validate", {}).items()}
    return Config(problem, method, options.pop("layers", None), options,
                  dict(tree.get("descent", {})), validate, dict(tree.get("sweep", {})))


def read_settings(settings: Sequence[str], sections: Sequence[str], why: str) -> dict[str, Any]:
    """Overrides "section.key=value" alone, checked, of some sections only.

    Raises
    ------
    ValueError
        As `read_config`, and for another section, with the reason why it has no place.
    """
    tree: dict[str, Any] = {}
    for setting in settings:
        _override(tree, setting)
    _check_sections(tree)
    for name in tree:
        if name not in sections:
            raise ValueError(f"--set {name}: expected one of {', '.join(sections)}; {why}")
    return tree


def _check_sections(tree: dict[str, Any]) -> None:
    """Raise ValueError for unknown sections and keys, and wrong values."""
    known = [*PROBLEM_SECTIONS[:2], "solve", *PROBLEM_SECTIONS[2:]]
    for name in tree:
        if name not in known:
            raise ValueError(_unknown(f"section [{name}]", name, known))
        if not isinstance(tree[name], dict):
            raise ValueError(f"{name}: expected a section [{name}], got {brief(tree[name])}")
    for name in PROBLEM_SECTIONS:
        _check_section(name, tree.get(name, {}))


def _built_in() -> dict[str, Any]:
    tree = {name: dict(section) for name, section in BUILT_IN.items()}
    tree["data"]["teacher"] = dict(tree["data"]["teacher"])
    return tree


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise ValueError(
            f"{path}: no such file; 'hamshoot init' writes a commented PROBLEM.toml")
    check_regular(path, "a TOML file")
    try:
        return _parsed(path.read_bytes().decode())
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # not TOML, not UTF-8, or a number of too many digits
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: not a TOML file ({reason[:2 * MOST_REPEATED]})") from None


def _parsed(text: str) -> dict[str, Any]:
    """Tree of a TOML text.

    Raises
    ------
    ValueError
        Also for brackets nested deeper than the parser goes, and integers of more digits than
        Python reads.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise tomllib.TOMLDecodeError("brackets are nested too deeply") from None


def _override(tree: dict[str, Any], setting: str) -> None:
    name, equals, text = setting.partition("=")
    parts = name.strip().split(".")
    if not equals or len(parts) < 2 or not all(parts):
        raise ValueError(f"--set: expected section.key=value, got {brief(setting)}")
    try:
        value = _parsed(f"value = {text.strip()}")["value"]
    except ValueError:
        value = text.strip()
    place = tree
    for part in parts[:-1]:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise ValueError(f"--set: {brief(part)[1:-1]} is not a section, in "
                             f"{brief(setting)}")
    place[parts[-1]] = value
    # A file on the command line replaces the built-in teacher, and the other way round.
    if parts[:2] == ["data", "file"]:
        tree["data"].pop("teacher", None)
    elif parts[:2] == ["data", "teacher"]:
        tree["data"].pop("file", None)


def _check_section(name: str, section: dict[str, Any]) -> None:
    known = SECTIONS[name]
    for key, value in section.items():
        if key not in known:
            raise ValueError(_unknown(f"key {name}.{key}", key, list(known)))
        rule = known[key]
        if rule is not None and not rule.fits(value):
            raise ValueError(f"{name}.{key}: expected {rule.expected}, got {brief(value)}")


def _unknown(what: str, name: str, known: list[str]) -> str:
    what, name = (text if len(text) <= MOST_REPEATED else text[:MOST_REPEATED] + "…"
                  for text in (what, name))
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"unknown {what}; {hint}"


def _problem(data: dict[str, Any], settings: dict[str, Any], base: Path) -> TrainingProblem:
    if ("file" in data) == ("teacher" in data):
        raise ValueError("data: expected one of file or teacher, got "
                         + ("both" if "file" in data else "neither"))
    seed = settings.get("seed", 0)
    if not _integer(seed) or seed < 0:
        raise ValueError(f"problem.seed: expected an integer >= 0, got {brief(seed)}")
    if "teacher" in data:
        arguments = _teacher(data, seed)
    else:
        arguments = _file(data, base, seed)
    depth = settings.get("effective_depth", 3.0)
    defaults = {
        "effective_depth": depth,
        "weight_decay": 1e-3 * depth if _number(depth) else depth,
        "width": max(8, arguments["X"].shape[1], arguments["Y"].shape[1]),
    }
    return TrainingProblem(**{**arguments, **defaults, **settings})


def _teacher(data: dict[str, Any], seed: int) -> dict[str, Any]:
    for key in (*OF_TABLES, "test_fraction"):
        if key in data:
            raise ValueError(f"data.{key}: only a file has it, the data come from a teacher")
    _check_section("teacher", data["teacher"])
    teacher = {"dims": [6, 2, 6], "samples": 30, "test_samples": 1000, **data["teacher"]}
    X, Y, X_test, Y_test = teacher_data(tuple(teacher["dims"]), teacher["samples"],
                                        teacher["test_samples"], seed)
    arguments = {"X": X, "Y": Y, "standardize": data.get("standardize", "common")}
    if len(X_test):
        arguments.update(X_test=X_test, Y_test=Y_test)
    return arguments


def _file(data: dict[str, Any], base: Path, seed: int) -> dict[str, Any]:
    file = data["file"]
    path = base / file
    if path.suffix == ".npz" and not is_url(file):
        for key in OF_TABLES:
            if key in data:
                raise ValueError(f"data.{key}: only a table has it, as a CSV file, {path.name} is "
                                 ".npz")
        table = read_npz(path)
    else:
        table = read_table(file if is_url(file) else path,
                           {key: data[key] for key in OF_TABLES if key in data})
    table = split_rows(table, data.get("test_fraction", 0.0), seed)
    return {**table.arguments(), "standardize": data.get("standardize", True)}
