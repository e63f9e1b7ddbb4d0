"""The public names, their signatures and the fields of summary.json are those of the file."""

import inspect

import public_api
import pytest

import hamshoot as hs

FUNCTIONS = [name for name in hs.__all__ if inspect.isfunction(getattr(hs, name))]


def test_the_public_names_and_signatures_are_those_of_the_file():
    changed = public_api.differences(public_api.lines(), public_api.kept())
    assert changed == [], "meant? then python tests/public_api.py --write, and the CHANGELOG"


def test_a_change_is_noticed():
    kept = public_api.kept()
    line = next(one for one in kept if one.startswith("hs.solve(...): layers"))
    renamed = [one.replace("layers", "depth") if one == line else one for one in kept]
    assert public_api.differences(renamed, kept) == ["-" + line, "+" + renamed[kept.index(line)]]
    assert public_api.differences([one for one in kept if one != line], kept) == ["-" + line]
    assert public_api.differences([*kept, "hs.more()"], kept) == ["+hs.more()"]


def test_every_public_name_has_lines():
    kept = public_api.kept()
    for name in hs.__all__:
        assert any(line.startswith(f"hs.{name}") for line in kept), name
    for command in ("solve", "compare"):
        assert f"summary.json of {command}: success" in kept


@pytest.mark.parametrize("name", [*FUNCTIONS, "Solution", "LeakyResNet", "TrainingProblem"])
def test_every_argument_and_return_is_annotated(name):
    value = getattr(hs, name)
    calls = [member for own, member in inspect.getmembers(value, callable)
             if not own.startswith("_")] if inspect.isclass(value) else [value]
    for call in calls:
        signature = inspect.signature(call)
        bare = [one.name for one in signature.parameters.values()
                if one.annotation is one.empty and one.name != "self"]
        assert bare == [], call.__qualname__
        assert signature.return_annotation is not signature.empty, call.__qualname__
