"""A test file stands in the folder of what it tests, under a name of its own."""

from collections import Counter
from pathlib import Path

import hamshoot

TESTS, PACKAGE = Path(__file__).parent, Path(hamshoot.__file__).parent
#: Folders that test no folder of the package.
OTHERS = {"demos"}
FILES = sorted(TESTS.rglob("test_*.py"))


def test_folders_mirror_the_package():
    folders = {path.parent.relative_to(TESTS) for path in FILES} - {Path(name) for name in OTHERS}
    assert [str(folder) for folder in folders if not (PACKAGE / folder).is_dir()] == []
    assert len(folders) > 10


def test_no_two_files_are_called_alike():
    """As pytest imports them by name, without packages; nor is one called as what they share."""
    counts = Counter(path.name for path in TESTS.rglob("*.py"))
    assert [name for name, count in counts.items() if count > 1] == []
