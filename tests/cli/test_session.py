"""Where a log-in is kept."""

import stat
from pathlib import Path

import pytest

from chatd.cli.errors import Trouble
from chatd.cli.session import LogIn, Session, SessionFile

ANN = LogIn("http://127.0.0.1:8080", "ann", 1, "chatd_secret")


def test_a_log_in_is_kept_where_only_its_owner_can_read(tmp_path: Path) -> None:
    file = SessionFile(tmp_path / "deep" / "session.json")
    file.write(ANN)
    assert file.read() == ANN
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    assert [each.name for each in file.path.parent.iterdir()] == ["session.json"]


def test_nobody_is_logged_in_at_first(tmp_path: Path) -> None:
    file = SessionFile(tmp_path / "session.json")
    assert file.read() is None
    file.remove()
    with pytest.raises(Trouble, match="nobody is logged in"):
        Session(None, file).logged_in()


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = SessionFile(tmp_path / "session.json")
    file.write(ANN)
    file.path.chmod(0o640)
    with pytest.raises(Trouble, match="others can read"):
        file.read()


@pytest.mark.parametrize("content", ["", "{}", '{"server": 1}', "<html>"])
def test_a_file_that_holds_something_else_says_so(tmp_path: Path, content: str) -> None:
    file = SessionFile(tmp_path / "session.json")
    file.write(ANN)
    file.path.write_text(content)
    with pytest.raises(Trouble, match="holds no log-in"):
        file.read()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    file = SessionFile(tmp_path / "file" / "session.json")
    with pytest.raises(Trouble, match="cannot write"):
        file.write(ANN)
    with pytest.raises(Trouble, match="cannot read"):
        file.read()


def test_the_default_follows_the_xdg_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert SessionFile().path == tmp_path / "chatd" / "session.json"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert SessionFile().path == tmp_path / ".config" / "chatd" / "session.json"


@pytest.mark.parametrize(
    "server", ["localhost:8080", "ftp://host", "http://", "http://host:port", "http://host:99999"]
)
def test_a_server_is_given_as_a_url(tmp_path: Path, server: str) -> None:
    with pytest.raises(Trouble, match="is not a URL"):
        Session(None, SessionFile(tmp_path / "x")).connect(server)
