"""The command line: solve, compare, sweep, verify, export, predict, plot, report, init.

Exit codes: 0 solved, 1 not converged (the best iterate is saved and marked), 2 bad input (one line
on standard error). Results go to a directory and are never overwritten without --force; with --json
standard output holds one JSON object and nothing else. Progress is shown on standard error; with
--json only that of what takes more than two seconds.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from hamshoot.command.choosing import check_choice, chosen
from hamshoot.command.config import TEMPLATE, Config, read_config
from hamshoot.command.continuing import continued, own_config
from hamshoot.command.exports import export_file, remarks, to_verify
from hamshoot.command.predict import predict
from hamshoot.command.results import COMPARE, SOLVE, Results
from hamshoot.command.scheduler import cluster
from hamshoot.command.signals import Stoppable, Stopped, answered, interrupt
from hamshoot.command.sweep import swept
from hamshoot.methods.descent.optimizers import optimizer_named
from hamshoot.network.follow_path import SCHEMES
from hamshoot.network.layer_steps import steps_of
from hamshoot.optimality.certificate import certify
from hamshoot.problem.saved import key as problem_key
from hamshoot.report.page import page_path
from hamshoot.report.page import report as write_report
from hamshoot.report.results import FILES, read_results
from hamshoot.solution.solution import Solution, Status
from hamshoot.study import plot as figures
from hamshoot.study.compare import Comparison, Row
from hamshoot.study.compare import compare as compare_problem
from hamshoot.study.solve import check_method, default_layers
from hamshoot.study.solve import solve as solve_problem
from hamshoot.study.summaries import summary as summary_of
from hamshoot.study.tables import comparison_table
from hamshoot.support.files import write_whole
from hamshoot.support.journal import Journal, kept_in, key_of
from hamshoot.support.version import __version__

SOLVED, NOT_CONVERGED, BAD_INPUT = 0, 1, 2
RESULTS = "hamshoot-results"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hamshoot")
def cli() -> None:
    """Optimal Leaky ResNets by shooting, beside gradient descent."""


def _problem_options(command: Callable) -> Callable:
    decorators = [
        click.argument("problem", required=False, type=click.Path(path_type=Path)),
        click.option("-o", "--output", type=click.Path(path_type=Path), default=Path(RESULTS),
                     show_default=True, help="Directory for the results."),
        click.option("--method", help="auto, multiple_shooting, single_shooting or indirect."),
        click.option("--layers", type=int, help="Layers L of the network."),
        click.option("--effort", help="How long the search goes on: quick, default or thorough."),
        click.option("--workers", type=int, help="Threads of the search (default a core each); "
                     "the answer does not depend on it."),
        click.option("--scheduler", metavar="ADDRESS", help="A scheduler of Dask, tcp://host:port, "
                     "whose workers do the work instead of threads."),
        click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE",
                     help="Override a value of PROBLEM.toml; may be repeated."),
        click.option("--force", is_flag=True, help="Overwrite existing results."),
        click.option("--json", "as_json", is_flag=True,
                     help="Print the summary as JSON, alone, on standard output."),
    ]
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


@cli.command()
@_problem_options
@click.option("--from", "result", metavar="RESULT.npz", type=click.Path(path_type=Path),
              help="Go on from a saved solution; without PROBLEM.toml, of its own problem.")
@click.option("--validate", "validating", is_flag=True,
              help="Choose λ, L̃ and width on held-out rows first, see [validate].")
@click.option("--tune", "tuning", metavar="NAMES", help="Choose weight_decay, effective_depth or "
              "both (with a comma) down the derivative of the held-out error first.")
def solve(
    problem: Path | None, output: Path, method: str | None, layers: int | None,
    effort: str | None, workers: int | None, scheduler: str | None, settings: Sequence[str],
    force: bool, as_json: bool, result: Path | None, validating: bool, tuning: str | None,
) -> int:
    """Find an optimal network; without PROBLEM.toml, of the built-in problem."""
    names = check_choice(result, validating, tuning)
    before = None if result is None else (Solution.load(result), result)
    config, guess = _config(problem, method, layers, settings, before, effort=effort,
                            workers=workers)
    validation = None
    job = _job(",".join(["tune", *names]) if names else "validate" if validating else "solve",
               config, guess)
    with cluster(scheduler, workers) as served, Results(output, SOLVE, force, job) as results, \
            Stoppable(patient=as_json) as progress:
        options = {**config.solve, **served}
        progress.say(f"{config.problem!r}")
        with kept_in(Journal(results.journal, progress.say)):
            if validating or names:
                validation = chosen(config, names, served, progress)
                solution = replace(validation, settings={**validation.settings, **served}
                                   ).solve(progress)
            else:
                solution = solve_problem(config.problem, config.method, layers=config.layers,
                                         initial_guess=guess, callback=progress, **options)
        progress.saving()
        summary = summary_of(solution)
        if validation is not None:
            summary["validation"] = validation.to_dict()
        solution.save(results.path("solution.npz"))
        _write_json(results.path("summary.json"), summary)
        written = ["solution.npz", "summary.json"]
        if np.isfinite(solution.objective):
            _figure(lambda plot: plot.figure(solution), results.path("solution.png"))
            written.append("solution.png")
        place = results.publish(
            solution.status in (Status.INTERRUPTED, Status.WORKERS_LOST))
    if as_json:
        _print_json(summary)
    else:
        if validation is not None:
            click.echo(f"{validation.table()}\n{validation.finding()}\n")
        _print(comparison_table([{**summary, "name": solution.method.replace("_", " ")}]))
        click.echo("\n".join([_closing(solution.success, solution.message), *summary["remarks"]]))
    if place != output or not as_json:
        click.echo(results.advice(place, written), err=as_json)
    return SOLVED if solution.success else NOT_CONVERGED


@cli.command()
@_problem_options
def compare(
    problem: Path | None, output: Path, method: str | None, layers: int | None,
    effort: str | None, workers: int | None, scheduler: str | None, settings: Sequence[str],
    force: bool, as_json: bool,
) -> int:
    """Solve by optimal control and by gradient descent, also at equal seconds; table and figure."""
    config, _ = _config(problem, method, layers, settings, effort=effort, workers=workers)
    rows: list[Row] = []
    with cluster(scheduler, workers) as served, \
            Results(output, COMPARE, force, _job("compare", config)) as results, \
            Stoppable(patient=as_json) as progress:
        arguments = _compare_arguments(config, served)
        progress.say(f"{config.problem!r}")

        def keep(row: Row) -> None:
            rows.append(row)
            row.solution.save(results.path(FILES[row.name]))
            progress.say(f"{row.name}: objective {row.solution.objective:.8g}, "
                         f"{row.solution.seconds:.1f} s, {row.solution.status.name.lower()}")

        try:
            with kept_in(Journal(results.journal, progress.say)):
                comparison = compare_problem(
                    config.problem, config.layers, method=config.method, callback=progress,
                    on_row=keep, **arguments)
        except KeyboardInterrupt:
            if not rows:
                raise
            comparison = Comparison(config.problem, tuple(rows), complete=False)
        progress.saving()
        summary = comparison.to_dict()
        _write_json(results.path("summary.json"), summary)
        written = [*(FILES[row.name] for row in rows), "summary.json"]
        if all(np.isfinite(row.solution.objective) for row in rows):
            _figure(lambda plot: comparison.figure(), results.path("comparison.png"))
            written.append("comparison.png")
        place = results.publish(not comparison.complete or any(
            row.solution.status is Status.INTERRUPTED for row in rows))
    if as_json:
        _print_json(summary)
    else:
        _print(comparison_table(summary["rows"]))
        click.echo("\n".join([_closing(comparison.complete, summary["finding"]),
                              *summary["remarks"]]))
    if place != output or not as_json:
        click.echo(results.advice(place, written), err=as_json)
    return SOLVED if summary["success"] else NOT_CONVERGED


@cli.command()
@_problem_options
@click.option("--over", multiple=True, metavar="NAME=VALUES", help="effective_depth, weight_decay, "
              "epsilon or width over 1,2,4 or 1:7:13 (evenly) or 1e-4:1e-2:9:log; may be repeated.")
@click.option("--directory", type=click.Path(path_type=Path), help="The same as --output.")
@click.option("--search", help="How many points begin with a search (3), or all.")
def sweep(
    problem: Path | None, output: Path, method: str | None, layers: int | None,
    effort: str | None, workers: int | None, scheduler: str | None, settings: Sequence[str],
    force: bool, as_json: bool, over: Sequence[str], directory: Path | None, search: str | None,
) -> int:
    """Solve over values of parameters, each point from its neighbours; table and figure.

    --workers says how many points are solved at a time.
    """
    config, _ = _config(problem, method, layers, settings, effort=effort)
    found = swept(config, over, search, output if directory is None else directory, force, workers,
                  scheduler, patient=as_json)
    if as_json:
        _print_json(found.summary)
    else:
        click.echo(f"{found.table}\n")
        click.echo(_closing(found.success, found.summary["finding"]))
    if found.advice:
        click.echo(found.advice, err=as_json)
    return SOLVED if found.success else NOT_CONVERGED


@cli.command()
@click.argument("solution", type=click.Path(path_type=Path))
@click.option("--stationarity", type=float, help="Bound asked of the stationarity; needed where "
              "the status claims none.")
@click.option("--problem", type=click.Path(path_type=Path), metavar="PROBLEM.toml",
              help="What a network trained elsewhere is to solve: .safetensors, .pt or .npz.")
@click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE",
              help="Override a value of PROBLEM.toml; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print the certificate as JSON.")
def verify(solution: Path, stationarity: float | None, problem: Path | None,
           settings: Sequence[str], as_json: bool) -> int:
    """Check a saved solution, or any network in a problem, by formulas that no solver uses.

    Exit code 1 unless all holds.
    """
    certificate = certify(*to_verify(solution, problem, settings), stationarity=stationarity)
    if as_json:
        _print_json(certificate.to_dict())
    else:
        click.echo(repr(certificate))
    return SOLVED if certificate.holds else NOT_CONVERGED


@cli.command()
@click.argument("result", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True,
              help="File to write; it ends with .onnx, .safetensors or .pt.")
@click.option("--float32", is_flag=True, help="Single precision; default is double.")
@click.option("--layers", type=int, help="Layers of the network; default the solution's own.")
@click.option("--steps", type=click.Choice(SCHEMES), help="Layer steps of the network.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def export(result: Path, output: Path, float32: bool, layers: int | None, steps: str | None,
           force: bool, as_json: bool) -> int:
    """Write the network of a saved result for ONNX, safetensors or PyTorch.

    Predictions take and give the user's units; how far they are from the network's own is measured
    on the data of the solution.
    """
    exported, summary = export_file(result, output, float32=float32, layers=layers, steps=steps,
                                    force=force)
    if as_json:
        _print_json(summary)
    else:
        click.echo(f"Wrote {exported}")
        for remark in remarks(summary):
            click.echo(remark)
    return SOLVED


@cli.command()
@click.argument("solution", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path),
              help="Directory for the figures; default that of the solution.")
@click.option("--format", "kind", type=click.Choice(["png", "pdf", "svg"]), default="png",
              show_default=True)
@click.option("--force", is_flag=True, help="Overwrite existing figures.")
def plot(solution: Path, output: Path | None, kind: str, force: bool) -> int:
    """Draw spectra, energies, cost, convergence and the path of a saved solution."""
    loaded = Solution.load(solution)
    output = solution.parent if output is None else output
    panels = figures.panels(loaded)
    names = [f"{name}.{kind}" for name in panels]
    _claim(output, names, force)
    for name, draw in panels.items():
        figures.save_figure(draw(), output / f"{name}.{kind}")
    click.echo(f"Wrote {', '.join(names)} to {output}")
    return SOLVED


@cli.command()
@click.argument("results", required=False, type=click.Path(path_type=Path), default=Path(RESULTS))
@click.option("-o", "--output", type=click.Path(path_type=Path),
              help="The page; default report.html among the results.")
@click.option("--title", help="Heading of the page.")
@click.option("--second-order/--no-second-order", default=True, show_default=True,
              help="Whether the page says if a stationary point is a minimum, which takes longest.")
@click.option("--force", is_flag=True, help="Overwrite an existing page.")
def report(results: Path, output: Path | None, title: str | None, second_order: bool, force: bool
           ) -> int:
    """Make one HTML page of the results of solve or compare, or of a saved solution."""
    beside = results if results.is_dir() else results.parent
    output = page_path(beside / "report.html" if output is None else output)
    if output.exists() and not force:
        raise ValueError(f"{output}: exists; --force overwrites it, or choose another with -o")
    found = read_results(results)
    _claim(output.parent, (), force)
    click.echo(f"Checking and drawing {results}", err=True)
    write_report(found, output, title=title, second_order=second_order)
    click.echo(f"Wrote {output}")
    return SOLVED


@cli.command()
@click.argument("path", required=False, type=click.Path(path_type=Path),
                default=Path("PROBLEM.toml"))
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def init(path: Path, force: bool) -> int:
    """Write a commented PROBLEM.toml."""
    if path.exists() and not force:
        raise ValueError(f"{path}: exists; --force overwrites it")
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent}: no such directory")
    write_whole(path, lambda file: file.write(TEMPLATE), mode="w")
    click.echo(f"Wrote {path}; edit it, then: hamshoot compare {path}")
    return SOLVED


cli.add_command(predict)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: every failure is an exit code and one line."""
    try:
        with answered(interrupt):
            code = cli.main(args=arguments, prog_name="hamshoot", standalone_mode=False)
    except Stopped as stopped:
        code = _complain(str(stopped), NOT_CONVERGED)
    except click.ClickException as error:
        code = _complain(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        code = _complain("stopped before there was a result; nothing was written", NOT_CONVERGED)
    except (ValueError, OSError, MemoryError, ImportError) as error:  # an extra may be missing
        if os.environ.get("HAMSHOOT_DEBUG"):
            raise
        code = _complain(_sentence(error))
    sys.exit(code)


# -- input -----------------------------------------------------------------------------------------


def _config(path: Path | None, method: str | None, layers: int | None, settings: Sequence[str],
            before: tuple[Solution, Path] | None = None, **options: Any) -> tuple[Config, Any]:
    """Config with the command line's own options on top, all checked before any work is done.

    With a solution from `before`, its network is the guess that comes second.
    """
    if before is not None and path is None:
        config = own_config(*before, settings)
    else:
        config = read_config(path, settings)
    config = replace(config, method=method or config.method,
                     layers=config.layers if layers is None else layers,
                     solve={**config.solve, **{name: value for name, value in options.items()
                                               if value is not None}})
    guess = None
    if before is not None:
        config, guess = continued(config, *before)
    check_method(config.problem, config.method, config.layers, config.solve)
    return config, guess


def _compare_arguments(config: Config, served: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `compare` from [solve] and [descent]; start and seed belong to both."""
    descent = dict(config.descent)
    steps = descent.pop("steps", "equidistant")
    layers = default_layers(config.problem) if config.layers is None else config.layers
    steps_of(steps, layers, config.problem.effective_depth, names=SCHEMES)
    optimizer = optimizer_named(descent.pop("optimizer", "adam"), descent)
    options = {**config.solve, **served}
    both: dict[str, Any] = {
        key: options.pop(key) for key in ("start", "seed", "starts") if key in options}
    return {**both, "descent_steps": steps, "optimizer": optimizer, "method_options": options,
            "time_limit": options.get("time_limit")}


# -- output ----------------------------------------------------------------------------------------


def _claim(output: Path, names: Sequence[str], force: bool) -> None:
    """Make the directory and see that it can be written to, before hours are spent.

    Raises
    ------
    ValueError
        If it holds results already, or cannot be written to.
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output}: expected a directory, got a file")
    present = [name for name in names if (output / name).exists()]
    if present and not force:
        raise ValueError(f"{output}: already holds {', '.join(present)}; --force overwrites, "
                         "or choose another directory with -o")
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / f".hamshoot-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"{output}: cannot be written to ({error.strerror})") from None


def _job(command: str, config: Config, guess: Any = None) -> str:
    """A key of what a command computes."""
    return key_of(command, problem_key(config.problem), config.method, config.layers,
                  config.solve, config.descent, getattr(guess, "weights", None))


def _write_json(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(path, lambda file: file.write(text + "\n"), mode="w")


def _figure(draw: Callable[[Any], Any], path: Path) -> None:
    figures.save_figure(draw(figures), path)


def _print(table: Any) -> None:
    from rich.console import Console

    console = Console()
    Console(width=max(console.width, 100) if not console.is_terminal else None).print(table)


def _print_json(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def _closing(success: bool, message: str) -> str:
    return message if success else f"NOT CONVERGED. {message}"


def _complain(message: str, code: int = BAD_INPUT) -> int:
    click.echo(f"hamshoot: {' '.join(message.split())}", err=True)
    return code


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'file'}: {error.strerror}"
    return str(error) or type(error).__name__

