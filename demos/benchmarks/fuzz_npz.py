"""Damaged .npz files by the thousand: bytes, arrays and metadata of solutions and networks changed.

Run ``python fuzz_npz.py [COUNT] [SEED]``, half an hour for the ten thousand of fuzz_npz.json; with
WRITE as a third argument the counts go there. Needs Hypothesis (the extra `test`), whose strategies
draw the damage: bytes flipped, cut, doubled; types, shapes and numbers of arrays; fields of the
metadata, with integers of 400 digits, brackets without end, halves of surrogate pairs; names of
members, paths among them; headers that promise what is not there; other compressions, and bombs.

A case is good if the file is refused by one ValueError of one line, or is read; what is read must
print and must be certified without an exception, and must not be certified where controls, states
or costates are others than those that were saved. Memory is held to a limit meanwhile.
"""

from __future__ import annotations

import collections
import contextlib
import datetime
import functools
import importlib.metadata
import io
import json
import platform
import random
import resource
import struct
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st

import hamshoot as hs
from hamshoot.optimality.candidate import holds_solution

#: Bytes of address space beyond what is in use that a case may take.
MEMORY = 60_000_000
#: Characters of a message, that of the path aside.
LONGEST = 400
HERE = Path(__file__).parent


class File(bytes):
    """A file's bytes, which print as their number: Hypothesis keeps what it draws as text too."""

    def __repr__(self) -> str:
        return f"File({len(self)})"


def bases() -> dict[str, bytes]:
    """Files to damage, by what is in them."""
    layered = hs.teacher_problem((3, 1, 3), 5, width=3, effective_depth=2.0, test_samples=3)
    smooth = hs.teacher_problem((2, 1, 2), 4, width=2, effective_depth=2.0, weight_decay=0.02,
                                activation="smooth_relu", epsilon=0.2, test_samples=0)
    solution = hs.solve(layered, hs.DirectSingleShooting(layers=4, starts=1, start="path"))
    path = hs.solve(smooth, hs.IndirectShooting(segments=5))
    solution, path = (one.replace(history=one.history[-5:]) for one in (solution, path))
    with tempfile.TemporaryDirectory() as folder:
        return {name: thing.save(Path(folder) / f"{name}.npz").read_bytes() for name, thing in
                (("solution", solution), ("path", path), ("network", solution.to_network()))}


# -- damage ----------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.floats() | st.text(max_size=8)
    | st.sampled_from([10**400, -1, 2**63, 1e308, "relu", "x" * 700, "\ud800", "../../etc/passwd",
                       "nan", "CONVERGED", "flow"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner,
                                                                max_size=3), max_leaves=5)
NAMES = st.sampled_from(["../../tmp/x", "/etc/passwd", "weights.npy", "p", "a\x00b", "", "metadata",
                         "problem.", "C:\\x", "ω", "x" * 500, "problem.X"])
TYPES = (">f8", "f4", "f2", "c16", "i8", "u1", "U5", "S3", "?", "O")


@st.composite
def flipped(draw: Any, data: bytes) -> bytes:
    """Bytes replaced, cut out, doubled, or the file cut off."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(changed) - 1, 0)))
        kind = draw(st.sampled_from(["byte", "byte", "byte", "cut", "double", "end", "zeros"]))
        if kind == "byte" and changed:
            changed[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del changed[at : at + draw(st.integers(1, 200))]
        elif kind == "double":
            changed[at:at] = changed[at : at + draw(st.integers(1, 200))]
        elif kind == "zeros":
            changed[at : at + 8] = b"\0" * 8
        elif draw(st.integers(0, 3)) == 0:
            del changed[at:]
    return bytes(changed)


@st.composite
def array_changed(draw: Any, data: bytes) -> bytes:
    """One array of another type, another shape, or with other numbers."""
    arrays = dict(np.load(io.BytesIO(data)))
    name = draw(st.sampled_from(sorted(set(arrays) - {"metadata"})))
    arrays[name] = _other(draw, arrays[name])
    return _saved(arrays)


def _other(draw: Any, array: np.ndarray) -> Any:
    kind = draw(st.sampled_from(["type", "shape", "number", "order", "gone", "scale"]))
    if kind == "type":
        with np.errstate(all="ignore"):
            return array.astype(draw(st.sampled_from(TYPES)))
    if kind == "shape":
        return draw(st.sampled_from([array[:-1], array.T, array[None], array.ravel(), array[..., 0],
                                     np.zeros(()), np.zeros((0, 3)), array[:0]]))
    if kind == "number" and array.size:
        changed = array.copy()
        changed.flat[draw(st.integers(0, array.size - 1))] = draw(st.floats())
        return changed
    if kind == "order":
        return array[np.random.default_rng(draw(st.integers(0, 99))).permutation(len(array))]
    if kind == "scale":
        with np.errstate(all="ignore"):
            return array * draw(st.sampled_from([0.0, -1.0, 1 + 1e-9, 1e-6, 1e3, 1e155, 1e200]))
    return np.array("gone")


@st.composite
def metadata_changed(draw: Any, data: bytes) -> bytes:
    """A field of the metadata replaced, taken away or added, or text that is no JSON."""
    arrays = dict(np.load(io.BytesIO(data)))
    metadata = json.loads(str(arrays["metadata"]))
    place = metadata
    while True:
        name = draw(st.sampled_from(sorted(place))) if place else draw(st.text(max_size=3))
        inner = place.get(name)
        if isinstance(inner, dict) and inner and draw(st.booleans()):
            place = inner
            continue
        break
    kind = draw(st.sampled_from(["replace", "replace", "replace", "delete", "add", "text"]))
    if kind == "replace":
        place[name] = draw(VALUES)
    elif kind == "delete":
        place.pop(name, None)
    elif kind == "add":
        place[draw(NAMES)] = draw(VALUES)
    text = json.dumps(metadata)
    if kind == "text":
        text = draw(st.sampled_from(["[" * 100_000, text[:-1], "1" * 5000, "", "null", "{}", "NaN",
                                     text.replace(": 1,", ": 1e999,", 1), '"' + "y" * 600]))
    arrays["metadata"] = np.array(text)
    return _saved(arrays)


@st.composite
def renamed(draw: Any, data: bytes) -> bytes:
    """A member under another name, perhaps that of another."""
    name = draw(NAMES)
    name += draw(st.sampled_from([".npy", ""]))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    which = draw(st.integers(0, len(members) - 1))
    members[which] = (name, members[which][1])
    return _zipped(members)


@st.composite
def header_changed(draw: Any, data: bytes) -> bytes:
    """The header of a member says another shape or type, or is none."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    which = draw(st.integers(0, len(members) - 1))
    shape = draw(st.sampled_from(["(1000000000000000000000000000000,)", "(-1,)", "(0,)", "()",
                                  "(99999999999,)", "(3, 4", "(0, 10000000000000)", "(1,)*99",
                                  "((((((1,))))))", "(__import__('os').getpid(),)"]))
    kind = draw(st.sampled_from(["<f8", "|O", "<f16", "<U1000000000", "<U0", "V8", "<m8[s]", "x"]))
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    version = draw(st.sampled_from([1, 1, 1, 2, 3, 9]))
    form = "<H" if version == 1 else "<I"
    body = members[which][1][128:]
    members[which] = (members[which][0], b"\x93NUMPY" + bytes([version, 0])
                      + struct.pack(form, len(text)) + text + body)
    return _zipped(members)


@st.composite
def repacked(draw: Any, data: bytes) -> bytes:
    """The same, compressed otherwise; or a bomb."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    way = draw(st.sampled_from([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
    if draw(st.integers(0, 9)) == 0:
        changed = bomb(data, draw(st.integers(0, len(members) - 1)))
    else:
        changed = _zipped(members, way)
    return draw(flipped(changed)) if draw(st.booleans()) else changed


@functools.lru_cache(100)
def bomb(data: bytes, which: int) -> bytes:
    """A small file, one of whose members unpacks to 80 MB of zeros."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    zeros = io.BytesIO()
    np.save(zeros, np.zeros(10_000_000))
    members[which] = (members[which][0], zeros.getvalue())
    return _zipped(members, zipfile.ZIP_DEFLATED)


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """Any damage to a file; now and then none."""
    ways = (flipped, flipped, array_changed, array_changed, metadata_changed, metadata_changed,
            renamed, header_changed, repacked)
    return st.one_of(st.just(File(data)), *(way(File(data)) for way in ways)).map(File)


def _saved(arrays: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def _zipped(members: list[tuple[str, bytes]], way: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", way) as archive:
        for name, content in members:
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type = name, way
            archive.writestr(info, content)
    return out.getvalue()


# -- judgement -------------------------------------------------------------------------------------


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Hold the memory of this process to what it has and `MEMORY` bytes; on Linux."""
    table = Path("/proc/self/statm")
    before = resource.getrlimit(resource.RLIMIT_AS)
    if table.exists():
        most = int(table.read_text().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def judged(kind: str, data: bytes, folder: Path, original: Any) -> str:
    """What became of a file: refused, read, or certified; AssertionError where it is not good."""
    path = folder / "f.npz"
    path.write_bytes(data)
    load = hs.LeakyResNet.load if kind == "network" else hs.Solution.load
    assert holds_solution(path) in (True, False)
    try:
        with limited():
            loaded = load(path)
    except ValueError as error:
        message = str(error).replace(str(path), "")
        assert len(message) <= LONGEST, message
        assert "\n" not in message, message
        return "refused"
    assert sorted(folder.iterdir()) == [path]
    if kind == "network":
        repr(loaded)
        loaded.predict(np.zeros((2, loaded.lift.shape[1])))
        return "read"
    proof = hs.certify(loaded, second_order=False)
    repr(proof)
    if not proof.holds:
        return "read"
    for name in ("p", "weights", "representations", "momenta"):
        np.testing.assert_allclose(getattr(loaded, name), getattr(original, name), rtol=1e-6,
                                   atol=1e-7)
    return "certified"


def outcomes(kind: str, data: bytes, count: int, seed: int) -> collections.Counter:
    """How often a damaged file of a kind was refused, read, or certified."""
    counts: collections.Counter = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "f.npz"
        place.write_bytes(data)
        original = None if kind == "network" else hs.Solution.load(place)

        @hypothesis.seed(seed)
        @hypothesis.settings(max_examples=count, database=None, deadline=None,
                             suppress_health_check=list(hypothesis.HealthCheck))
        @hypothesis.given(damaged(data))
        def each(changed: bytes) -> None:
            with np.errstate(all="ignore"):
                counts[judged(kind, changed, Path(folder), original)] += 1

        each()
    return counts


def main() -> None:
    """Run so many cases, shared among the kinds of files."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**6)
    files, counts = bases(), {}
    for number, (kind, data) in enumerate(files.items()):
        counts[kind] = outcomes(kind, data, -(-count // len(files)), seed + number)
        print(kind, dict(counts[kind]), flush=True)
    if sys.argv[3:] == ["WRITE"]:
        record = {
            "date": datetime.date.today().isoformat(), "seed": seed, "machine": platform.machine(),
            "versions": {name: importlib.metadata.version(name)
                         for name in ("hamshoot", "numpy", "hypothesis")},
            "cases": sum(sum(c.values()) for c in counts.values()), "bad": 0,
            "outcomes": {kind: dict(sorted(c.items())) for kind, c in counts.items()}}
        (HERE / "fuzz_npz.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
