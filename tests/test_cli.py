"""The command line: its options are the library's, its output is for people and for programs."""

import inspect
import json
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import vistadex
from vistadex import cli, cli_annotations, cli_search
from vistadex.catalog import Catalog
from vistadex.testing import RedSquareDetector, scene_jpeg

RED = ("red square", 10, 20, 40)
BLUE = ("blue square", 90, 60, 30)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, place in (("CATALOG", "catalog.db"), ("MODELS", "models"), ("CACHE", "cache")):
        monkeypatch.setenv(f"VISTADEX_{name}", str(tmp_path / place))
    monkeypatch.delenv("VISTADEX_DETECTOR", raising=False)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """An indexed folder: two red scenes, one of them with blue, and a broken file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "both.jpg").write_bytes(scene_jpeg([RED, BLUE]))
    (folder / "red.jpg").write_bytes(scene_jpeg([RED]))
    (folder / "broken.jpg").write_bytes(b"no picture")
    vistadex.index(folder, detector=RedSquareDetector())
    return folder


class Ran(typing.NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, typing.Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> typing.Any:
    def run_it(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["vistadex", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return Ran(int(ended.value.code or 0), captured.out, captured.err)

    return run_it


GROUPS = (
    (cli.app, "vistadex "),
    (cli.models_app, "vistadex models "),
    (cli.catalog_app, "vistadex catalog "),
    (cli.train_app, "vistadex train "),
)


def options_of(function: typing.Callable[..., object]) -> dict[str, object]:
    """Parameters with their defaults, leaving out what every command has."""
    parameters = inspect.signature(function).parameters.values()
    left_out = {"json_", "self", "progress"}
    return {p.name: p.default for p in parameters if p.name not in left_out}


def test_index_has_the_names_and_defaults_of_the_library() -> None:
    assert options_of(cli.index) == options_of(vistadex.index)


def test_annotation_commands_have_the_names_and_defaults_of_the_library() -> None:
    for command in ("import_annotations", "export_annotations", "compare", "copy"):
        options = options_of(getattr(cli_annotations, command))
        if "out_" in options:  # `out` is the function that prints
            options = {name.rstrip("_"): default for name, default in options.items()}
        assert options == options_of(getattr(vistadex, command))


def test_searching_has_the_names_and_defaults_of_the_library() -> None:
    assert options_of(cli_search.search) == options_of(Catalog.search) | {"catalog": None}
    assert options_of(cli_search.facets) == options_of(Catalog.facets) | {
        "catalog": None,
        "limit": 20,
    }
    assert options_of(cli_search.relations) == options_of(Catalog.relations) | {
        "catalog": None,
        "predicates": False,
    }


def test_every_command_and_option_is_documented() -> None:
    text = (Path(__file__).parent.parent / "docs" / "cli.md").read_text(encoding="utf-8")
    for group, prefix in GROUPS:
        for command in group.registered_commands:
            assert command.callback is not None
            name = command.name or command.callback.__name__
            section = text.partition(f"## `{prefix}{name}`")[2].partition("\n## ")[0]
            assert section, f"{prefix}{name} is not in docs/cli.md"
            for parameter, hint in typing.get_type_hints(
                command.callback, include_extras=True
            ).items():
                if parameter in ("return", "json_", "catalog", "models"):
                    continue
                option = typing.get_args(hint)[1]
                flag = "--" + parameter.rstrip("_").replace("_", "-")
                if "Argument" not in type(option).__name__:
                    assert flag in section, f"{flag} of {name} is not in docs/cli.md"


def test_every_command_has_json() -> None:
    for group, _ in GROUPS:
        for command in group.registered_commands:
            assert command.callback is not None
            assert "json_" in inspect.signature(command.callback).parameters


def test_search_prints_ranked_lines(run: typing.Any, photos: Path) -> None:
    done = run("search", "red square")
    lines = done.out.splitlines()
    assert done.code == 0
    assert len(lines) == 2
    assert re.match(r"[01]\.\d{3}  /.*/photos/\w+\.jpg  \[.*red square [01]\.\d\d", lines[0])
    assert "2 of 2 images" in done.err


def test_search_as_json_is_an_object_a_line(run: typing.Any, photos: Path) -> None:
    (row,) = run("search", "blue square & red square", "--json").rows
    assert row["uri"] == str(photos / "both.jpg")
    assert row["score"] == pytest.approx(sum(one["score"] for one in row["classes"]), abs=1e-5)
    assert {one["class"] for one in row["classes"]} == {"red square", "blue square"}
    assert len(row["boxes"]) == 2
    assert len(row["boxes"][0]["box"]) == 4


def test_search_goes_on_behind_a_cursor(run: typing.Any, photos: Path) -> None:
    first = run("search", "red square", "--limit", "1", "--json")
    cursor = first.rows[0]["cursor"]
    assert f"more: --after {cursor}" in first.err
    rest = run("search", "red square", "--after", cursor, "--json")
    assert {row["uri"] for row in first.rows + rest.rows} == {
        str(photos / "both.jpg"),
        str(photos / "red.jpg"),
    }


def test_an_unknown_class_is_exit_code_2_with_suggestions(run: typing.Any, photos: Path) -> None:
    done = run("search", "red sqare")
    assert (done.code, done.out) == (2, "")
    assert "unknown class 'red sqare': did you mean red square" in done.err


def test_classes_stats_and_errors_say_what_is_there(run: typing.Any, photos: Path) -> None:
    assert run("classes", "--json").rows == [
        {"class": "red square", "images": 2, "boxes": 2},
        {"class": "blue square", "images": 1, "boxes": 1},
    ]
    assert "2 images" in run("classes").out
    (stats,) = run("stats", "--json").rows
    assert (stats["images"], stats["failed"], stats["boxes"]) == (3, 1, 3)
    assert "1 failed" in run("stats").out
    (bad,) = run("errors", "--json").rows
    assert (bad["uri"], bad["reason"]) == (str(photos / "broken.jpg"), "not_an_image")
    assert run("errors", "--reason", "empty").out == ""
    assert run("errors", "--reason", "no-such").code == 2


def test_show_draws_the_boxes(run: typing.Any, photos: Path, tmp_path: Path) -> None:
    import cv2

    done = run("show", "photos/both.jpg", "-o", "drawn.jpg", "--json")
    assert done.code == 0
    assert done.rows[0]["drawn"] == "drawn.jpg"
    before = cv2.imread(str(photos / "both.jpg"))
    after = cv2.imread(str(tmp_path / "drawn.jpg"))
    assert before.shape == after.shape
    changed = abs(before.astype(int) - after).max(axis=2) > 60
    assert changed[:, 88:94].any()
    assert not changed[100:, :5].any()


def test_show_writes_beside_you_by_default_and_says_where(
    run: typing.Any, photos: Path, tmp_path: Path
) -> None:
    done = run("show", str(photos / "red.jpg"))
    assert (tmp_path / "red.boxes.jpg").exists()
    assert "red square" in done.out
    assert "drawn into red.boxes.jpg" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["search", "dog", "--catalog", "none.db"], 6, "no catalog here; `vistadex index FOLDER`"),
        (["index", "no-such-folder"], 4, "no-such-folder"),
        (["index"], 2, "sources"),
        (["index", ".", "--only", "some"], 2, "some"),
        (["index", ".", "--min-score", "high"], 2, "--min-score"),
        (["index", "ftp://host/x"], 2, "unknown"),
        (["index", ".", "--detector", "no-model"], 3, "no-model"),
        (["index", "."], 5, "vistadex models add"),
        (["models", "info", "nothing"], 3, "there is no model"),
        (["models", "add", "nothing.onnx"], 3, "nothing.onnx: no such file"),
        (["show", "nothing.jpg", "--catalog", "none.db"], 6, "no catalog here"),
        (["serve", "--catalog", "none.db"], 6, "no catalog here"),
        (["bogus"], 2, "bogus"),
    ],
)
def test_errors_have_a_code_and_say_the_cure(
    run: typing.Any, arguments: list[str], code: int, message: str
) -> None:
    done = run(*arguments)
    assert message in done.err
    assert (done.code, done.out) == (code, "")
    assert "Traceback" not in done.err


def test_index_as_json_is_one_object(run: typing.Any, shared_data: Path, tmp_path: Path) -> None:
    weights = str(shared_data / "weights" / "yolox_nano.onnx")
    assert run("models", "add", weights, "--name", "nano", "--dynamic-size").code == 0
    assert [row["name"] for row in run("models", "list", "--json").rows] == ["nano"]
    done = run("index", str(shared_data / "robust"), "--json")
    (row,) = done.rows
    assert list(row) == [
        "images",
        "indexed",
        "unchanged",
        "failed",
        "vanished",
        "pruned",
        "seconds",
        "images_per_s",
        "peak_rss_bytes",
        "failures",
        "refused",
        "calls",
        "calls_usd",
        "left",
        "left_usd",
    ]
    assert row["images"] == row["indexed"] + row["failed"] == 29
    assert row["failures"]["truncated"] == 2
    again = run("index", str(shared_data / "robust"))
    assert "29 images" in again.out
    assert "29 unchanged" in again.out
    assert run("models", "remove", "nano").code == 0
    assert "no models yet" in run("models", "list").err


def test_val_pictures_are_found_by_what_is_in_them(run: typing.Any, shared_data: Path) -> None:
    """Classes that people annotated are what the detector's best results show."""
    truth = json.loads((shared_data / "coco" / "instances_val.json").read_text())
    names = {c["id"]: c["name"] for c in truth["categories"]}
    in_image: dict[int, set[str]] = {}
    for one in truth["annotations"]:
        in_image.setdefault(one["image_id"], set()).add(names[one["category_id"]])
    file_names = {i["file_name"]: i["id"] for i in truth["images"]}
    weights = str(shared_data / "weights" / "yolox_nano.onnx")
    done = run("index", str(shared_data / "coco/images/val"), "--detector", weights)
    assert "240 indexed" in done.out
    right = []
    for class_name in ("person", "train", "zebra", "dog", "dining table", "airplane"):
        rows = run("search", class_name, "--limit", "5", "--json").rows
        right += [class_name in in_image[file_names[Path(row["uri"]).name]] for row in rows]
    assert sum(right) / len(right) >= 0.8


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['vistadex', '--help']; from vistadex import cli; cli.main()"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True
    )
    assert "Usage: vistadex" in done.stdout
    loaded = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert not loaded & {"numpy", "cv2", "sqlalchemy", "onnxruntime", "fastapi", "obstore", "PIL"}


def test_without_a_terminal_progress_is_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vistadex import progress as module

    monkeypatch.setattr(module, "LINE_EVERY_S", 0.0)
    with cli.progress_bar() as progress:
        progress.update(listed=10, listing=True, done=5, failed=1)
        progress.update(listed=10, listing=False, done=10, failed=1)
    lines = capsys.readouterr().err.splitlines()
    assert re.match(r"5 of 10\+ images, [\d,]+/s, 1 failed", lines[0])
    assert re.match(r"10 of 10 images, [\d,]+/s, 0:00:00 left, 1 failed", lines[1])


def test_on_a_terminal_progress_is_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with cli.progress_bar() as progress:
        progress.update(listed=10, listing=False, done=5, failed=0)
    assert "5 of 10 images" in capsys.readouterr().err


@pytest.mark.usefixtures("photos")
def test_a_query_is_collected_found_again_and_taken_out(run: typing.Any) -> None:
    (first, *_) = run("search", "--json").rows
    made = run("collect", "my best", "")
    assert (made.code, made.err) == (0, "")
    assert made.out.startswith("my best: ")
    (listed,) = run("collections", "--json").rows
    assert listed["name"] == "my best"
    found = run("search", 'collection:"my best"', "--json").rows
    assert len(found) == listed["images"] > 0
    removed = run("collect", "my best", "--remove", "--ids", str(first["id"]), "--json")
    assert removed.rows[0]["images"] == listed["images"] - 1
    assert run("collect", "my best", "--rename", "best").code == 0
    assert "best" in run("collections").out
    assert run("collect", "best", "--delete").code == 0
    assert run("collections").out == ""


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("dog", "--ids", "1"),
        ("--ids", "1,x"),
        ("--delete", "--remove"),
        ("dog", "--rename", "x"),
    ],
)
def test_collect_refuses_what_it_can_not_mean(run: typing.Any, arguments: tuple[str, ...]) -> None:
    done = run("collect", "best", *arguments)
    assert done.code == 2
    assert "expected" in done.err
    assert run("collections").out == ""
