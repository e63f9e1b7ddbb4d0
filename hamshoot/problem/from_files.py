"""Problems from files: what `TrainingProblem.from_csv` and its like do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, cast

from hamshoot.problem.hints import log_hints
from hamshoot.problem.readers import Table, read_csv, read_npz, table_arguments
from hamshoot.problem.stored_tables import read_parquet, read_zarr

if TYPE_CHECKING:
    from hamshoot.problem.training_problem import TrainingProblem


class FromFiles:
    """The constructors of `TrainingProblem` that read files."""

    @classmethod
    def from_csv(
        cls, path: str | PathLike, targets: int | Sequence[str] = 1, **kwargs: Any
    ) -> TrainingProblem:
        """Problem from a CSV file with a header row; see `hamshoot.problem.readers.read_csv`.

        The other arguments are what that takes, `test_fraction`, and everything `TrainingProblem`
        takes; `standardize` is True unless given.
        """
        return cls._read(read_csv, path, dict(kwargs, targets=targets))

    @classmethod
    def from_npz(cls, path: str | PathLike, mmap: bool = False, **kwargs: Any) -> TrainingProblem:
        """Problem from an .npz file that holds X, Y and, if it has them, X_test and Y_test.

        With `mmap` X and Y are left in the file, which has to be uncompressed, as `numpy.savez`
        writes it, and there is no `test_fraction`. The other arguments are those of `from_csv`.
        """
        return cls._read(read_npz, path, dict(kwargs, mmap=mmap))

    @classmethod
    def from_parquet(
        cls, path: str | PathLike, targets: int | Sequence[str] = 1, *, lazy: bool | None = None,
        storage_options: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> TrainingProblem:
        """Problem from a Parquet file or a folder of such, by path or URL (extra ``parquet``).

        What fits into memory is read as a CSV file is; with `lazy`, and by default from 500 MB up,
        rows stay in the file (`hamshoot.problem.stored_tables.read_parquet`). The other arguments
        are those of `from_csv`.
        """
        return cls._read(read_parquet, path, dict(kwargs, targets=targets, lazy=lazy,
                                                  storage_options=storage_options))

    @classmethod
    def from_zarr(
        cls, path: str | PathLike, *, storage_options: Mapping[str, Any] | None = None,
        **kwargs: Any
    ) -> TrainingProblem:
        """Problem from a Zarr group with arrays X and Y, which stay in it (extra ``zarr``).

        X_test and Y_test are read, where it has them; there is no `test_fraction`. The other
        arguments are those of `TrainingProblem`; `standardize` is True unless given.
        """
        return cls._read(read_zarr, path, dict(kwargs, storage_options=storage_options))

    @classmethod
    def _read(cls, read: Callable[..., Table], path: str | PathLike, options: dict[str, Any]
              ) -> TrainingProblem:
        make = cast("Callable[..., TrainingProblem]", cls)  # whose fields are its arguments
        return log_hints(make(**table_arguments(read, path, options)))
