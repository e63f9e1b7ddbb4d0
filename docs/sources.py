"""Pages that are made from sources elsewhere in the repository."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path

THEORY = "hamshoot/theory/hamiltonian.py"
ROOT = Path(__file__).parent.parent


def docstring_of(path: Path) -> str:
    """The module docstring of a file."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if text is None:
        raise ValueError(f"{path}: expected a docstring, found none")
    return text


def with_literal_formulas(text: str) -> str:
    """Indented blocks are formulas, kept line by line: ``::`` before each."""
    lines, out, inside = text.splitlines(), [], False
    for k, line in enumerate(lines):
        indented = line.startswith("    ")
        if indented and not inside:
            above = lines[k - 1].strip()
            out += [] if above and set(above) != {"-"} else ["", "::", ""]
        inside = indented or (inside and not line.strip())
        out.append(line)
    return "\n".join(out)


def write_theory(target: Path) -> None:
    """The theory page, in the words of the module that holds its formulas."""
    target.mkdir(exist_ok=True)
    text = docstring_of(ROOT / THEORY)
    first, rest = text.split("\n", 1)
    # The theorem and what follows it are formulas side by side, in the docstring without indent.
    rest = re.sub(r"^(Theorem 4\..*\n(?: {4,}.*\n)*)", _indented, rest, flags=re.M)
    head = "Theory\n======\n\n" + first + "\n"
    (target / "theory.rst").write_text(
        head + with_literal_formulas(rest) + "\n", encoding="utf-8")


def _indented(match: re.Match[str]) -> str:
    lines = match.group(1).rstrip("\n").splitlines()
    return "\n".join("    " + line for line in lines) + "\n"


def write_gallery(demos: Path, target: Path) -> None:
    """The demos, each with its title underlined and its committed figure.

    What a demo found stands under the figure, in the sentences that its last full run printed.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    (target / "GALLERY_HEADER.rst").write_text(
        "Gallery\n=======\n\nEvery script is a study with its findings; figures and sentences are "
        "those of the last full run, kept in ``demos/results/`` with seed, date, machine and "
        "versions. ``python demos/NAME.py --small`` runs one in seconds.\n", encoding="utf-8")
    for script in sorted(demos.glob("[0-9]*.py")):
        text = script.read_text(encoding="utf-8")
        docstring = docstring_of(script)
        title, rest = docstring.split("\n", 1)
        title = title.rstrip(".")
        body = text[text.index('"""', text.index('"""') + 3) + 3:]
        figure = demos / "figures" / f"{script.stem}.png"
        page = [title, "=" * len(title), "", *_figure(figure, target), *_findings(script), rest]
        head = "\n".join(line.replace("\\", "\\\\") for line in "\n".join(page).splitlines())
        thumbnail = f"\n# sphinx_gallery_thumbnail_path = '{_relative(figure)}'\n" \
            if figure.exists() else ""
        (target / script.name).write_text(f'"""\n{head}\n"""\n{thumbnail}{body}', encoding="utf-8")


def _relative(path: Path) -> str:
    return "../" + path.relative_to(ROOT).as_posix()


def _figure(figure: Path, target: Path) -> list[str]:
    if not figure.exists():
        return []
    return [f".. image:: /{_relative(figure)}", f"   :alt: Figure of {figure.stem}", ""]


def _findings(script: Path) -> list[str]:
    """What the last full run found, as a list."""
    path = script.parent / "results" / f"{script.stem}.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text(encoding="utf-8")).get("findings", [])
    escaped = [re.sub(r"([*|`_\\])", r"\\\1", sentence) for sentence in found]
    return ["**Found**", "", *(f"* {sentence}" for sentence in escaped), ""] if escaped else []
