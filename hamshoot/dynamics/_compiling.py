"""How kernels are compiled: kept for later processes where that is possible, and in less time.

- `njit` is numba's, but where no directory for its cache can be written it compiles without one;
  numba's own refuses. A disk that is full and a file that is damaged end nothing either.
- While numba loads and compiles, Python's garbage collector is at rest: it would look through all
  of the compiler's objects again and again, and find nothing.
- A kernel that calls another one is optimised together with it, and so is the next that calls that
  one. `call` goes by the address of the other instead.
- What is being compiled is told to `hamshoot.dynamics.compiling`.
"""

from __future__ import annotations

import gc
import pickle
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hamshoot.dynamics.compiling import compilation


class _Rest:
    """Switches the garbage collector off while anybody asks for it, and then on again if it was."""

    def __init__(self) -> None:
        self.lock, self.askers, self.was_on = threading.Lock(), 0, False

    def begin(self) -> None:
        with self.lock:
            if self.askers == 0:
                self.was_on = gc.isenabled()
                gc.disable()
            self.askers += 1

    def end(self) -> None:
        with self.lock:
            self.askers -= 1
            if self.askers == 0 and self.was_on:
                gc.enable()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Inside a ``with``."""
        self.begin()
        try:
            yield
        finally:
            self.end()


_rest = _Rest()

with _rest.kept():
    import numba
    from llvmlite import ir
    from numba.core import cgutils, event, types
    from numba.core.caching import FunctionCache
    from numba.extending import intrinsic


class _Loading(event.Listener):
    """numba loads a kernel from its cache, or compiles one."""

    def on_start(self, event: Any) -> None:
        """The collector rests."""
        _rest.begin()

    def on_end(self, event: Any) -> None:
        """The collector goes on."""
        _rest.end()


class _Compiling(event.Listener):
    """numba compiles a function."""

    def on_start(self, event: Any) -> None:
        """Count it."""
        compilation.begin()

    def on_end(self, event: Any) -> None:
        """It is done."""
        compilation.end(event.data["dispatcher"].stats.cache_path)


event.register("numba:compiler_lock", _Loading())
event.register("numba:compile", _Compiling())


class _Cache(FunctionCache):
    """Where code is kept: what cannot be kept or read is compiled anew, and the program goes on."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The code for some types; None where there is none, or its file is damaged."""
        try:
            return super().load_overload(sig, target_context)
        except (OSError, EOFError, pickle.UnpicklingError):
            self._kept(self.flush)  # else the index stays damaged, and nothing can be added
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the code for some types, if there is room."""
        self._kept(lambda: super(_Cache, self).save_overload(sig, data))

    def _kept(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            compilation.not_kept(self.cache_path, getattr(error, "strerror", None) or "damaged")


def njit(**options: Any) -> Callable[[Callable], Any]:
    """`numba.njit` with the cache where there can be one, else without.

    numba keeps compiled code in the first of these that can be written: NUMBA_CACHE_DIR, the
    ``__pycache__`` beside the source, the user's own cache directory. Files there are put in place
    whole, so that any number of processes may start at once.
    """
    def decorate(function: Callable) -> Any:
        try:
            made = numba.njit(**options)(function)
            if options.get("cache"):
                made._cache = _Cache(made.py_func)
            return made
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            return numba.njit(**{**options, "cache": False})(function)

    return decorate


def place_of(kernel: Any, *arguments: Any) -> tuple[int, int]:
    """Where the machine code of a kernel is, and for which types: what `call` takes.

    Parameters
    ----------
    kernel : dispatcher
        Made by `njit`, and one that returns a float. Compiled, if it was not, for these types.
    *arguments
        As in a call.
    """
    kinds = tuple(numba.typeof(each) for each in arguments)
    kernel.compile(kinds)
    compiled = kernel.overloads[kinds]
    address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name)
    return int(address), _tag(kinds)


def _tag(kinds: tuple[Any, ...]) -> int:
    """A number that tells types from others."""
    return zlib.crc32(repr(kinds).encode())


@intrinsic  # type: ignore[untyped-decorator]  # numba has no types
def call(context: Any, place: Any, arguments: Any) -> Any:
    """``call(place, (x, y, …))``, in kernels: what the kernel at a place returns.

    Raises
    ------
    TypeError
        Where the arguments are of other types than the place was taken for.
    """
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        address, tag = cgutils.unpack_tuple(builder, values[0])
        wrong = builder.icmp_signed("!=", tag, tag.type(expected))
        with builder.if_then(wrong, likely=False):
            context.call_conv.return_user_exc(
                builder, TypeError, ("a kernel is called with other types than compiled for",))
        each = cgutils.unpack_tuple(builder, values[1])
        kind = ir.FunctionType(ir.DoubleType(), [value.type for value in each])
        return builder.call(builder.inttoptr(address, kind.as_pointer()), each)

    expected = _tag(tuple(arguments.types))
    return types.float64(place, arguments), generate
