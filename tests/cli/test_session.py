"""The file with the saved login."""

import stat
from pathlib import Path

import pytest

from chatd.cli.errors import CommandError
from chatd.cli.session import SavedLogin, Session, SessionFile

ANN = SavedLogin("http://127.0.0.1:8080", "ann", 1, "chatd_secret")


def test_only_its_owner_can_read_the_saved_login(tmp_path: Path) -> None:
    file = SessionFile(tmp_path / "deep" / "session.json")
    file.save(ANN)
    assert file.load() == ANN
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    assert [each.name for each in file.path.parent.iterdir()] == ["session.json"]


def test_without_a_file_nobody_is_logged_in(tmp_path: Path) -> None:
    file = SessionFile(tmp_path / "session.json")
    assert file.load() is None
    file.delete()
    with pytest.raises(CommandError, match="not logged in"):
        Session(None, file).logged_in()


def test_a_file_that_others_can_read_is_rejected(tmp_path: Path) -> None:
    file = SessionFile(tmp_path / "session.json")
    file.save(ANN)
    file.path.chmod(0o640)
    with pytest.raises(CommandError, match="other users can read"):
        file.load()


@pytest.mark.parametrize("content", ["", "{}", '{"server": 1}', "<html>"])
def test_a_file_with_other_content_is_rejected(tmp_path: Path, content: str) -> None:
    file = SessionFile(tmp_path / "session.json")
    file.save(ANN)
    file.path.write_text(content)
    with pytest.raises(CommandError, match="is not a saved login"):
        file.load()


def test_file_errors_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    file = SessionFile(tmp_path / "file" / "session.json")
    with pytest.raises(CommandError, match="cannot write"):
        file.save(ANN)
    with pytest.raises(CommandError, match="cannot read"):
        file.load()


def test_the_default_path_follows_xdg_config_home(
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
def test_a_malformed_server_url_is_rejected(tmp_path: Path, server: str) -> None:
    with pytest.raises(CommandError, match="is not a URL"):
        Session(None, SessionFile(tmp_path / "x")).connect(server)
