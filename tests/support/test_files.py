"""Files are whole, on the disk, with the rights of results; nothing stays behind."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from hamshoot.support import files
from hamshoot.support.files import write_whole


def text(content):
    return lambda file: file.write(content)


KILLED = """
import os, signal, sys
from pathlib import Path
from hamshoot.support.files import write_whole

def half(file):
    file.write("half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

write_whole(Path(sys.argv[1]), half, mode="w")
"""


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="files have names from the first here")
def test_a_process_killed_while_it_writes_a_new_file_leaves_nothing(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "new.txt"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_a_process_killed_while_it_writes_leaves_the_older_file(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, text("older"), mode="w")
    subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert path.read_text() == "older"


@pytest.mark.parametrize("nameless", [True, False])
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_rights_follow_the_umask_and_what_is_written_is_synced(
        nameless, umask, tmp_path, monkeypatch):
    if not nameless:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(os.fstat(handle).st_size),
                                                     fsync(handle))[1])
    before = os.umask(umask)
    try:
        for content in ("first", "second"):
            write_whole(tmp_path / "a.txt", text(content), mode="w")
            assert (tmp_path / "a.txt").read_text() == content
            assert len(content) in synced  # the file, whole; and the directory
            assert len(synced) >= 2
            synced.clear()
        assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~umask
    finally:
        os.umask(before)
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOENT, errno.EEXIST])
def test_where_there_are_no_links_the_file_has_a_name_from_the_first(code, tmp_path, monkeypatch):
    def link(*arguments, **options):
        raise OSError(code, "no link")

    monkeypatch.setattr(os, "link", link)
    write_whole(tmp_path / "a.txt", text("whole"), mode="w")
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_a_full_disk_is_an_error_and_leaves_what_was(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_whole(path, text("older"), mode="w")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    for name in ("a.txt", "b.txt"):
        with pytest.raises(OSError, match="No space left"):
            write_whole(tmp_path / name, text("newer"), mode="w")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "older")]
