"""`hamshoot solve --validate` and `--tune`: what is chosen on held-out rows before the solve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hamshoot.command.config import Config
from hamshoot.command.signals import Stoppable
from hamshoot.study.tune import tune
from hamshoot.study.validate import Try, Validation, validate


def check_choice(result: Any, validating: bool, tuning: str | None) -> tuple[str, ...]:
    """Names of what is to be tuned; none without `--tune`.

    Raises
    ------
    ValueError
        For more than one of `--from`, `--validate` and `--tune`.
    """
    given = [name for name, there in (("--from", result is not None), ("--validate", validating),
                                      ("--tune", tuning is not None)) if there]
    if len(given) > 1 and "--from" in given:
        raise ValueError(f"{', '.join(given)}: expected one of them; the rows to be held out may "
                         "be among those that the result was trained on")
    if len(given) > 1:
        raise ValueError(f"{', '.join(given)}: expected one of them; the one tries values all with "
                         "all, the other goes down a derivative")
    return () if tuning is None else tuple(name.strip() for name in tuning.split(","))


def chosen(config: Config, names: tuple[str, ...], served: Mapping[str, Any], progress: Stoppable
           ) -> Validation:
    """What was tried, and what was chosen of it.

    Parameters
    ----------
    config : Config
    names : tuple of str
        What is tuned; with none, `hamshoot.validate` tries what [validate] says.
    served : mapping
        Who does the work.
    progress : Stoppable
    """
    def told(one: Try) -> None:
        progress.say(f"{one!r}: held-out error {one.error:.5g}")

    if not names:
        return validate(config.problem, config.method, layers=config.layers, callback=progress,
                        on_try=told, executor=served.get("workers"), **config.validate,
                        **config.solve)
    held_out = config.validate.get("held_out", 0.2)
    return tune(config.problem, names, config.method, layers=config.layers, held_out=held_out,
                callback=progress, on_try=told, **{**config.solve, **served})
