"""vistadex.settings: flag > environment > vistadex.toml > default."""

from pathlib import Path

import pytest

from vistadex import settings
from vistadex.errors import UsageError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for setting in settings.table():
        monkeypatch.delenv(f"VISTADEX_{setting.name.upper()}", raising=False)


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert settings.value("port", None, int) == 8765
    Path("vistadex.toml").write_text("port = 1", encoding="utf-8")
    assert settings.value("port", None, int) == 1
    monkeypatch.setenv("VISTADEX_PORT", "2")
    assert settings.value("port", None, int) == 2
    assert settings.value("port", 3, int) == 3


def test_an_unknown_setting_in_the_file_is_an_error() -> None:
    Path("vistadex.toml").write_text("prot = 1\n", encoding="utf-8")
    with pytest.raises(
        UsageError, match=r"vistadex.toml: unknown setting 'prot'; known are: .*port"
    ):
        settings.value("port", None, int)


def test_a_broken_file_is_an_error_with_its_place() -> None:
    Path("vistadex.toml").write_text("port = ", encoding="utf-8")
    with pytest.raises(UsageError, match=r"vistadex.toml: not readable as TOML"):
        settings.value("port", None, int)


@pytest.mark.parametrize("text", ['"many"', "true", "1.5"])
def test_a_value_of_the_wrong_kind_is_an_error(text: str) -> None:
    Path("vistadex.toml").write_text(f"port = {text}", encoding="utf-8")
    with pytest.raises(UsageError, match=r"port: .* is not a whole number"):
        settings.value("port", None, int)


def test_a_variable_of_the_wrong_kind_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISTADEX_PORT", "eighty")
    with pytest.raises(UsageError, match=r"VISTADEX_PORT: 'eighty' is not a whole number"):
        settings.value("port", None, int)


def test_folders_follow_the_xdg_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert settings.value("catalog", None, str) == "/data/vistadex/catalog.db"
    assert settings.value("cache", None, str) == "/caches/vistadex"


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("VISTADEX_MODELS", "~/m")
    assert settings.value("models", None, str) == "/home/me/m"
    assert settings.value("catalog", "~/c.db", str) == "/home/me/c.db"
    assert settings.value("catalog", "sqlite:///~/c.db", str) == "sqlite:///~/c.db"


def test_every_setting_is_documented() -> None:
    text = (Path(__file__).parent.parent / "docs" / "cli.md").read_text(encoding="utf-8")
    for setting in settings.table():
        assert f"`VISTADEX_{setting.name.upper()}`" in text
        assert f"`{setting.name}`" in text
