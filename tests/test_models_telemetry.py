"""What runtimes would tell their makers by themselves, and do not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vistadex import settings


def test_onnx_runtime_keeps_no_number_of_this_machine(tmp_path: Path, shared_data: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from vistadex.models.sessions import open_session\n"
        "open_session(Path(sys.argv[1]), cuda=False, required=False)\n"
    )
    file = str(shared_data / "weights" / "yolox_nano.onnx")
    home = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", code, file], check=True, env=home)
    assert list(tmp_path.rglob("*")) == []


def test_who_wants_the_reports_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    with settings.without_telemetry():
        assert settings.environment()["ORT_DISABLE_TELEMETRY"] == "0"
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    with settings.without_telemetry():
        assert settings.environment()["ORT_DISABLE_TELEMETRY"] == "1"
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
