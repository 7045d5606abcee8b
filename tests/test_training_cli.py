"""`vistadex train`: its options are the library's, and its exit codes say what happened."""

import inspect
import json
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import vistadex
from tests.training_scenes import red_squares
from vistadex import cli, cli_train


def test_training_has_the_names_and_defaults_of_the_library() -> None:
    options = {
        name.rstrip("_"): one.default
        for name, one in inspect.signature(cli_train.train_detector).parameters.items()
        if name != "json_"
    }
    library = {
        name: one.default
        for name, one in inspect.signature(vistadex.train_detector).parameters.items()
        if name not in ("progress", "on_epoch")
    }
    assert options == library


def test_every_option_of_training_is_documented() -> None:
    text = (Path(__file__).parent.parent / "docs" / "cli.md").read_text(encoding="utf-8")
    section = text.partition("## `vistadex train detector`")[2].partition("\n## ")[0]
    assert section
    for name in typing.get_type_hints(cli_train.train_detector):
        if name not in ("return", "json_", "catalog", "models", "data"):
            assert f"`--{name.rstrip('_').replace('_', '-')}`" in section, name


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """A run of a few seconds."""
    red_squares(tmp_path, 8)
    words = f"train detector {tmp_path}/coco.json --images {tmp_path} --out {tmp_path}/out"
    words += f" --models {tmp_path}/models --size 64 --batch 4 --epochs 1 --workers 0 --devices cpu"
    return words.split()


def run(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["vistadex", *command])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def test_training_prints_what_was_made(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run([*command, "--name", "tiny"], monkeypatch, capsys)
    assert code == 0
    assert "model.onnx: 1 classes" in out
    assert "AP50" in out
    assert "epoch 1 of 1: loss total" in err
    assert "`vistadex index SOURCE --detector tiny` uses it" in err
    code, out, err = run([*command, "--json"], monkeypatch, capsys)
    assert (code, out) == (2, "")
    assert "holds a run already; go on with --resume" in err
    code, out, err = run([*command, "--json", "--resume"], monkeypatch, capsys)
    assert code == 0
    assert json.loads(out)["classes"] == ["red square"]


def test_help_does_not_load_torch() -> None:
    code = "import sys, vistadex.cli, vistadex.training; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
