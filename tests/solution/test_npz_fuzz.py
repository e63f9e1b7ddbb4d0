"""Damaged .npz files are refused in one line, or are read and certified only if nothing matters."""

import io
import json
import os
import struct
import sys
import zipfile
from pathlib import Path

import hypothesis
import numpy as np
import pytest

import hamshoot as hs
from hamshoot.support.npz import load_npz

BENCHMARKS = Path(__file__).parents[2] / "demos" / "benchmarks"
KINDS = ("solution", "path", "network")


@pytest.fixture(scope="module")
def fuzz():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import fuzz_npz
    finally:
        sys.path.remove(str(BENCHMARKS))
    return fuzz_npz


@pytest.fixture(scope="module")
def bases(fuzz):
    return fuzz.bases()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_end_in_declared_errors(kind, fuzz, bases):
    counts = fuzz.outcomes(kind, bases[kind], 120, seed=KINDS.index(kind))
    assert counts["refused"] > 60
    assert counts["read"] + counts["certified"] > 0


def test_the_committed_ten_thousand_were_all_good():
    record = json.loads((BENCHMARKS / "fuzz_npz.json").read_text())
    assert record["cases"] >= 10_000
    assert record["bad"] == 0
    assert sum(sum(counts.values()) for counts in record["outcomes"].values()) == record["cases"]


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(hypothesis.strategies.data())
def test_arrays_of_all_plain_types_come_back_as_numpy_reads_them(tmp_path_factory, data):
    st = hypothesis.strategies
    kind = data.draw(st.sampled_from(["f8", ">f8", "f4", "i2", "u8", "?", "c16", "U3", "S2"]))
    shape = tuple(data.draw(st.lists(st.integers(0, 4), max_size=3)))
    array = np.random.default_rng(0).integers(0, 9, shape).astype(kind)
    array = np.asfortranarray(array) if data.draw(st.booleans()) else array
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    save = np.savez_compressed if data.draw(st.booleans()) else np.savez
    save(path, a=array, b=array[..., None])
    for name, found in load_npz(path).items():
        expected = np.load(path)[name]
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found, expected)


def member(text, body=b"", version=1):
    form = "<H" if version == 1 else "<I"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack(form, len(text)) + text + body


def header(descr="<f8", shape="(2,)"):
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()


@pytest.mark.parametrize(("content", "says"), [
    (member(header(shape="(1000000000000000000000000000000,)")), "impossible shape"),
    (member(header(shape="(100000000000,)"), b"1" * 16), "promises 800000000000 bytes"),
    (member(header(), b"1" * 15), "promises 16 bytes"),
    (member(header("|O"), b"1" * 16), "no plain numbers"),
    (member(header("<U1000000000", "()")), "no plain numbers|promises"),
    (member(header(shape="(__import__('os').getpid(),)")), "its header is damaged"),
    (member(header(shape="(-1,)")), "its header is damaged"),
    (member(header(), b"1" * 16, version=9), "array format 9"),
    (b"text", "is no array"),
    (b"", "is no array"),
    (b"\x93NUMPY\x01", "is no array"),
    (b"\x93NUMPY\x01\x00\xff", "is cut off"),
    (member(b"x" * 20_000), "has 20000 bytes"),
])
def test_headers_are_believed_only_where_the_bytes_are_there(content, says, tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(ValueError, match=says) as error:
        load_npz(path)
    assert str(error.value).startswith(f"{path}: not a complete .npz file (")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    import tracemalloc

    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, a=np.zeros(12_000_000))
    assert path.stat().st_size < 200_000
    tracemalloc.start()
    with pytest.raises(ValueError, match="it unpacks to 96000"):
        load_npz(path)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    np.savez_compressed(path, a=np.random.default_rng(0).integers(0, 2, 10_000_000, dtype=np.int8))
    assert len(load_npz(path)["a"]) == 10_000_000  # that packs eight times


@pytest.mark.parametrize("way", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_and_encrypted_members_are_refused(way, tmp_path):
    content = io.BytesIO()
    np.save(content, np.ones(3))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", way) as archive:
        archive.writestr("a.npy", content.getvalue())
    with pytest.raises(ValueError, match=r"compressed in a way that numpy"):
        load_npz(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", a=np.ones(3))
    data = bytearray((tmp_path / "b.npz").read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    (tmp_path / "b.npz").write_bytes(data)
    with pytest.raises(ValueError, match="is encrypted"):
        load_npz(tmp_path / "b.npz")


def test_names_never_become_paths(bases, tmp_path):
    arrays = dict(np.load(io.BytesIO(bases["solution"])))
    folder = tmp_path / "inner"
    folder.mkdir()
    np.savez(folder / "s.npz", **arrays, **{"../escaped": np.ones(3)})
    with pytest.raises(ValueError, match=r"there is no array '\.\./escaped' in a solution"):
        hs.Solution.load(folder / "s.npz")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["inner", "s.npz"]


@pytest.mark.parametrize("make", [
    lambda path: os.mkfifo(path), lambda path: path.mkdir(),
    lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_not_opened(make, tmp_path):
    path = tmp_path / "s.npz"
    make(path)
    for load in (hs.Solution.load, hs.LeakyResNet.load, load_npz):
        with pytest.raises(ValueError, match=r"expected a file, got a (pipe|directory|device)"):
            load(path)


def changed(data, tmp_path, **arrays):
    """The file with other arrays; metadata by a function of what JSON gives."""
    held = dict(np.load(io.BytesIO(data)))
    for name, change in arrays.items():
        name = name.replace("__", ".")
        if name == "metadata":
            metadata = json.loads(str(held[name]))
            change(metadata)
            held[name] = np.array(json.dumps(metadata))
        else:
            held[name] = change(held[name])
    np.savez(tmp_path / "c.npz", **held)
    return tmp_path / "c.npz"


@pytest.mark.parametrize(("changes", "says"), [
    ({"p": lambda p: p[::-1]}, "p: expected nodes that ascend from 0 to 1"),
    ({"p": lambda p: np.where(p == p[2], np.nan, p)}, "p: expected nodes that ascend"),
    ({"p": lambda p: 0.9 * p}, "p: expected nodes that ascend"),
    ({"weights": lambda W: W + 0j}, "weights: expected real numbers, got complex128"),
    ({"problem__X": lambda X: X + 1j}, "X: expected real numbers, got complex128"),
    ({"weights": lambda W: W.astype("U9")}, "weights: expected real numbers, got <U9"),
    ({"metadata": lambda m: m.pop("status")}, "metadata: status is missing"),
    ({"metadata": lambda m: m.update(status="FINE")}, "status: expected one of CONVERGED"),
    ({"metadata": lambda m: m.update(status=["FINE"])}, "status: expected a string, got"),
    ({"metadata": lambda m: m.update(success=1)}, "success: expected true or false, got 1"),
    ({"metadata": lambda m: m.update(objective="low")}, "objective: expected a number, got 'low'"),
    ({"metadata": lambda m: m.update(objective=10**400)}, "objective: .* of 401 digits"),
    ({"metadata": lambda m: m.update(message="\ud800")}, "message: expected a string"),
    ({"metadata": lambda m: m.update(residuals={"defect": None})}, "residuals: expected numbers"),
    ({"metadata": lambda m: m.update(nit=-1)}, "nit: expected an integer >= 0, got -1"),
    ({"metadata": lambda m: m.update(history=[{}])}, "history: iteration is missing"),
    ({"metadata": lambda m: m.update(history=[3])}, "history: expected an object, got 3"),
    ({"metadata": lambda m: m.update(more=1)}, "there is no field 'more'"),
    ({"metadata": lambda m: m["extra"].update(epsilon="x")}, "extra: epsilon: expected a number"),
    ({"metadata": lambda m: m["problem"].update(width=10**9)}, "lift: expected a matrix for the"),
    ({"metadata": lambda m: m["problem"].update(width=2.5)}, "width: expected an integer"),
    ({"metadata": lambda m: m["problem"].update(input_names=5)}, "input_names: expected a list"),
    ({"metadata": lambda m: m["problem"].update(maps={"X": {"path": "/"}})}, "there is no map"),
    ({"metadata": lambda m: m.update(message="x" * 9000, success="y" * 9000)}, "success: expected"),
])
def test_metadata_and_arrays_keep_to_the_schema(changes, says, bases, tmp_path):
    with pytest.raises(ValueError, match=says) as error:
        hs.Solution.load(changed(bases["solution"], tmp_path, **changes))
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(("entry", "says"), [
    ({"offset": 8}, "within the 80 bytes"), ({"strides": [-40, 8]}, "within the 80 bytes"),
    ({"shape": [10**18, 5]}, "within the 80 bytes"), ({"dtype": "|O8"}, "a matrix of numbers"),
    ({"shape": [2]}, "a matrix of numbers"), ({"bytes": "many"}, "bytes: expected an integer"),
])
def test_a_map_reaches_no_further_than_its_file(entry, says, bases, tmp_path):
    data = tmp_path / "x.bin"
    np.arange(10.0).tofile(data)
    whole = {"path": str(data), "bytes": 80, "dtype": "<f8", "offset": 0, "shape": [2, 5],
             "strides": [40, 8]}
    held = dict(np.load(io.BytesIO(bases["solution"])))
    metadata = json.loads(str(held["metadata"]))
    metadata["problem"]["maps"] = {"X": {**whole, **entry}}
    held["metadata"] = np.array(json.dumps(metadata))
    del held["problem.X"]
    np.savez(tmp_path / "m.npz", **held)
    with pytest.raises(ValueError, match=says):
        hs.Solution.load(tmp_path / "m.npz")


def test_complex_controls_are_refused_everywhere(bases, tmp_path):
    (tmp_path / "s.npz").write_bytes(bases["solution"])
    solution = hs.Solution.load(tmp_path / "s.npz")
    with pytest.raises(ValueError, match="weights: expected real numbers, got complex128"):
        solution.replace(weights=solution.weights + 0j)
    with pytest.raises(ValueError, match="weights: expected real numbers, got complex128"):
        hs.LeakyResNet(**{**vars(solution.to_network()), "weights": solution.weights + 0j})
    with pytest.raises(ValueError, match="initial_guess: expected real numbers, got complex128"):
        hs.solve(solution.problem, layers=4, initial_guess=solution.weights + 0j)
