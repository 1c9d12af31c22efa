"""Files that appear once they are complete."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from chatd.runtime.partial_file import partial_file, remove_abandoned


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "copy"
    left = tmp_path / "copy.part"
    left.write_bytes(b"of a process that was killed")
    left.chmod(0o644)
    with partial_file(str(target)) as (path, descriptor):
        os.write(descriptor, b"new")
        assert path == str(left)
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [target]


def test_nothing_remains_of_a_failure(tmp_path: Path) -> None:
    def fail() -> None:
        with partial_file(str(tmp_path / "copy")) as (_, descriptor):
            os.write(descriptor, b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_make_one_file(tmp_path: Path) -> None:
    """The first to finish would else give its name to what the second has only begun."""
    target = tmp_path / "copy"
    with partial_file(str(target)) as (path, descriptor):
        with pytest.raises(BlockingIOError, match="another process"), partial_file(str(target)):
            pass
        remove_abandoned(path)
        os.write(descriptor, b"whole")
    assert target.read_bytes() == b"whole"


def test_a_file_that_is_completed_while_another_process_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "copy"
    monkeypatch.setattr(fcntl, "flock", lambda *_: os.rename(f"{target}.part", target))
    with pytest.raises(BlockingIOError, match="another process"), partial_file(str(target)):
        pass
    assert target.exists()


def test_a_file_system_without_locks_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", fail)
    error = errno.ENOLCK
    with partial_file(str(tmp_path / "copy")):
        pass
    assert (tmp_path / "copy").exists()
    error = errno.EIO
    with pytest.raises(OSError, match="Input/output error"), partial_file(str(tmp_path / "other")):
        pass


def test_what_a_killed_process_has_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "copy.part"
    left.touch()
    remove_abandoned(str(left))
    assert not left.exists()
