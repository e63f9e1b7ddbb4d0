"""Reading .npz files at the door: what a file promises is checked before anything is allocated.

An .npz file is a zip archive of .npy files. Read are those that `numpy.savez` and
`numpy.savez_compressed` write, of numbers and strings. A member's name is a key and never a path,
nothing is unpickled or evaluated, and memory stays within the size of the file, or where members
are compressed within PACKED times that.
"""

from __future__ import annotations

import math
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np

from hamshoot.support.checks import brief, check_regular

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: An archive that unpacks to more than so many times its size, and to more than so many bytes, is
#: refused. Numbers of double precision pack to a tenth, zeros alone to a thousandth.
PACKED, UNPACKED_BYTES = 100, 64_000_000
#: Numbers (bool, integer, float, complex) and strings.
KINDS = "biufcUS"
#: Bytes of an .npy header at most, as NumPy itself has it.
HEADER_BYTES = 10_000
#: Bytes that are unpacked at a time.
CHUNK = 16_000_000
#: Dimensions of an array at most, and items in one.
MOST_DIMENSIONS, MOST_ITEMS = 32, 2**48
#: Bits of a zip member that say it is encrypted, or a patch.
STRANGE_BITS = 0x01 | 0x20 | 0x40

_DESCRIPTION = re.compile(r"'descr'\s*:\s*'([<>|=]?)([a-zA-Z])(\d{0,9})'")
_ORDER = re.compile(r"'fortran_order'\s*:\s*(True|False)\b")
_SHAPE = re.compile(r"'shape'\s*:\s*\(((?:\s*\d{1,20}L?\s*,?)*)\s*\)")


class Header(NamedTuple):
    """What an .npy member says of itself."""

    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool

    @property
    def bytes(self) -> int:
        """Of the data."""
        return math.prod(self.shape) * self.dtype.itemsize


class NotNpz(ValueError):
    """Why a file is no complete .npz file, in a few words."""


def load_npz(path: Path) -> dict[str, NDArray]:
    """Read all arrays of an .npz file, without pickles.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict of str to ndarray
        Numbers and strings.

    Raises
    ------
    ValueError
        In one sentence, for a missing or truncated file, another kind of file, one that holds
        Python objects, and one that promises more than it holds.
    """
    check_regular(path, "a file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path.stat().st_size)
            headers = {name: _header_of(archive, info) for name, info in members.items()}
            return {name: _array(archive, members[name], header)
                    for name, header in headers.items()}
    except (NotNpz, OSError, EOFError, ValueError, OverflowError, NotImplementedError,
            zipfile.BadZipFile, zlib.error, struct.error) as error:
        reason = brief(str(error).splitlines()[0], 120) if str(error) else type(error).__name__
        raise ValueError(f"{path}: not a complete .npz file ({reason})") from None


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Members by the names of their arrays, their sizes checked against that of the file."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name == info.filename:
            raise NotNpz(f"its member {brief(name)} is no array")
        if name in members:
            raise NotNpz(f"it holds {brief(name)} twice")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise NotNpz(f"{brief(name)} is compressed in a way that numpy does not write")
        if info.flag_bits & STRANGE_BITS:
            raise NotNpz(f"{brief(name)} is encrypted")
        if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
            raise NotNpz(f"{brief(name)} has two sizes")
        members[name] = info
    packed = sum(info.compress_size for info in members.values())
    unpacked = sum(info.file_size for info in members.values())
    if packed > size:
        raise NotNpz(f"its arrays take {packed} bytes, the file has {size}")
    if unpacked > max(PACKED * size, UNPACKED_BYTES):
        raise NotNpz(f"it unpacks to {unpacked} bytes, more than {PACKED} times its size")
    return members


def _header_of(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Header:
    """The header of a member, which has to promise exactly what is there."""
    with archive.open(info) as file:
        header, length = _read_header(file, info.filename)
    if header.bytes != info.file_size - length:
        raise NotNpz(f"{brief(info.filename)} promises {header.bytes} bytes of numbers, it holds "
                     f"{info.file_size - length}")
    return header


def _read_header(file: IO[bytes], name: str) -> tuple[Header, int]:
    """Header of an .npy file and the bytes that it takes, read without evaluating it."""
    start = file.read(8)
    if start[:6] != b"\x93NUMPY" or len(start) < 8:
        raise NotNpz(f"{brief(name)} is no array")
    form = {1: "<H", 2: "<I"}.get(start[6])
    if form is None:
        raise NotNpz(f"{brief(name)} is in array format {start[6]}, read are 1 and 2")
    packed = file.read(struct.calcsize(form))
    if len(packed) < struct.calcsize(form):
        raise NotNpz(f"{brief(name)} is cut off")
    length = struct.unpack(form, packed)[0]
    if length > HEADER_BYTES:
        raise NotNpz(f"the header of {brief(name)} has {length} bytes")
    text = file.read(length).decode("latin1")
    return _parsed(text, name), 8 + len(packed) + length


def _parsed(text: str, name: str) -> Header:
    """What a header says: type, shape and order."""
    found = [pattern.search(text) for pattern in (_DESCRIPTION, _SHAPE, _ORDER)]
    description, shape, order = found
    if description is None or shape is None or order is None:
        raise NotNpz(f"{brief(name)} holds no plain numbers or strings, or its header is damaged")
    kind = description.group(2)
    sizes = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8, 16),
             "c": (8, 16, 32)}
    width = int(description.group(3) or 0)
    if kind not in KINDS or width < 1 or (kind in sizes and width not in sizes[kind]):
        raise NotNpz(f"{brief(name)} holds no plain numbers or strings ({kind}{width})")
    dimensions = tuple(int(d.rstrip("L")) for d in re.findall(r"\d+L?", shape.group(1)))
    items = math.prod(max(d, 1) for d in dimensions)
    if len(dimensions) > MOST_DIMENSIONS or items * width > MOST_ITEMS:
        raise NotNpz(f"{brief(name)} has an impossible shape")
    dtype = np.dtype("".join(description.groups()))
    return Header(dtype, dimensions, order.group(1) == "True")


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, header: Header) -> NDArray:
    """The numbers of a member; the checksum of the archive is checked on the way."""
    with archive.open(info) as file:
        _read_header(file, info.filename)
        data = np.empty(header.bytes, dtype=np.uint8)
        at = 0
        while at < len(data):
            part = file.read(min(CHUNK, len(data) - at))
            if not part:
                raise NotNpz(f"{brief(info.filename)} is cut off")
            data[at : at + len(part)] = np.frombuffer(part, dtype=np.uint8)
            at += len(part)
        file.read(1)  # the end, where the checksum is compared
    array = data.view(header.dtype) if len(data) else np.empty(0, header.dtype)
    return array.reshape(header.shape, order="F" if header.fortran else "C")
