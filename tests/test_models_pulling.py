"""vistadex.models.pulling: models from the web end in the store, or nowhere."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import sys
import threading
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from vistadex import cli
from vistadex.errors import (
    ModelError,
    ModelQuestionError,
    NotFoundError,
    SourceDeniedError,
    SourceError,
    SourceMissingError,
    SourceUnavailableError,
    UsageError,
)
from vistadex.models import ModelStore, pulling
from vistadex.models.heads import DETECTORS
from vistadex.models.pulling import TABLE, Published, access_hint, address, find, pull, token_for
from vistadex.models.tiny import constant_output

SECRET = "hf_s3cret"
PERMISSIVE = {"Apache-2.0", "MIT", "BSD-3-Clause"}


class Site(ThreadingHTTPServer):
    """A server of one file at every path but /missing, that can break off."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, data: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = data
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.cut_after: int | None = None
        self.status = 0
        self.log: list[tuple[str, Message]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/files/small%20net.onnx"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients go away on purpose here."""


class Handler(BaseHTTPRequestHandler):
    """Answers whole files and open ranges."""

    server: Site
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""

    def do_GET(self) -> None:
        site = self.server
        site.log.append((self.path, self.headers))
        if site.status:
            self.send_response(site.status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(found[1]) if found else 0
        self.send_response(206 if found else 200)
        if found:
            whole = len(site.data)
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        self.send_header("Content-Length", str(len(site.data) - start))
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(site.data[start:][: site.cut_after])
        self.close_connection = site.cut_after is not None


class Watched:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.done: list[int] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def update(self, done: int, whole: int | None) -> None:
        self.done.append(done)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VISTADEX_MODELS", str(tmp_path / "store"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("HF_TOKEN", "VISTADEX_HF_TOKEN", "VISTADEX_HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    file = constant_output(tmp_path / "served.onnx", np.zeros((84, 8), np.float32))
    site = Site(file.read_bytes())
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    site.shutdown()
    thread.join()
    site.server_close()


@pytest.fixture
def names(tmp_path: Path) -> Path:
    path = tmp_path / "names.txt"
    path.write_text("a\nb\nc\n")
    return path


def kept(store: ModelStore) -> list[str]:
    """Every file in the store's folder that is no model."""
    known = {path.stem for path in store.folder.glob("*.json")}
    files = (path for path in store.folder.rglob("*") if path.is_file())
    return sorted(path.name for path in files if path.stem not in known)


def unused_url() -> str:
    """An address at which nothing answers."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/net.onnx"


# The table


@pytest.mark.parametrize("name", TABLE)
def test_a_row_of_the_table_is_complete(name: str) -> None:
    row = TABLE[name]
    assert row.url.startswith("https://")
    assert re.fullmatch("[0-9a-f]{64}", row.sha256)
    assert row.size_bytes is not None
    assert row.size_bytes > 1 << 20
    assert row.options["name"] == name
    assert row.options["license"] in PERMISSIVE
    assert row.options["head"] in DETECTORS
    assert find(name) is row
    assert find(name, row.sha256.upper()) is row


def test_no_file_is_in_the_table_twice() -> None:
    assert len({row.sha256 for row in TABLE.values()}) == len(TABLE)
    assert len({row.url for row in TABLE.values()}) == len(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_a_row_of_the_table_says_all_that_the_store_asks(
    name: str, site: Site, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    coco = constant_output(store.folder.parent / "coco.onnx", np.zeros((84, 85), np.float32))
    site.data = coco.read_bytes()
    row = Published(
        url=site.url,
        sha256=hashlib.sha256(site.data).hexdigest(),
        size_bytes=len(site.data),
        options=TABLE[name].options,
    )
    monkeypatch.setattr(pulling, "TABLE", {name: row})
    card = pull(name, store=store).card
    assert (card.name, card.task, len(card.classes)) == (name, "detector", 80)
    assert (card.license, card.source) == ("Apache-2.0", site.url)


def test_an_unknown_name_lists_the_names_there_are(store: ModelStore) -> None:
    with pytest.raises(NotFoundError, match=r"'yolo': no such model .*yolox_nano.*models add"):
        pull("yolo", store=store)


def test_a_name_with_another_hash_is_an_error() -> None:
    with pytest.raises(UsageError, match=f"yolox_nano: --sha256 is {'0' * 64}, expected c789"):
        find("yolox_nano", "0" * 64)


# An address


def test_a_pulled_model_is_in_the_store(site: Site, store: ModelStore, names: Path) -> None:
    watched = Watched()
    added = pull(
        f"{site.url}?sig=s3cret",
        store=store,
        sha256=site.sha256.upper(),
        progress=watched,
        head="yolox",
        classes=names,
        license="MIT",
    )
    assert store.list() == [added]
    assert added.path.read_bytes() == site.data
    assert added.sha256 == site.sha256
    card = added.card
    assert (card.name, card.license, card.source) == ("small_net", "MIT", site.url)
    assert card.classes == ("a", "b", "c")
    assert kept(store) == []
    assert watched.done[-1] == len(site.data)
    assert watched.lines == [f"small_net.onnx: license MIT; from {site.url}"]


@pytest.mark.parametrize("sha256", ["", "abc", "g" * 64, "0" * 63])
def test_what_is_no_sha256_is_an_error(sha256: str, store: ModelStore) -> None:
    with pytest.raises(UsageError, match="not a SHA-256, expected the 64 hex digits"):
        pull("https://127.0.0.1/a.onnx", store=store, sha256=sha256)


@pytest.mark.parametrize("reference", ["https://u:s3cret@h/a.onnx?s3cret", "hf://a/b/c.onnx"])
def test_an_address_needs_a_sha256_and_the_message_says_why(
    reference: str, store: ModelStore
) -> None:
    with pytest.raises(UsageError, match=r"--sha256 is missing.*sha256sum FILE.*one file") as e:
        pull(reference, store=store)
    assert "s3cret" not in str(e.value)
    assert not store.folder.exists()


def test_a_pull_that_broke_off_goes_on(site: Site, store: ModelStore, names: Path) -> None:
    site.cut_after = 300
    with pytest.raises(SourceUnavailableError, match="the same command goes on with what has come"):
        pull(site.url, store=store, sha256=site.sha256, head="yolox", classes=names)
    assert store.list() == []
    site.cut_after = None
    pull(site.url, store=store, sha256=site.sha256, head="yolox", classes=names)
    assert site.log[1][1]["Range"] == "bytes=300-"
    assert len(store.list()) == 1
    assert kept(store) == []


def test_the_license_of_a_known_file_is_shown(
    shared_data: Path, site: Site, store: ModelStore
) -> None:
    site.data = (shared_data / "weights" / "yolox_nano.onnx").read_bytes()
    watched = Watched()
    sha256 = hashlib.sha256(site.data).hexdigest()
    added = pull(site.url, store=store, sha256=sha256, progress=watched, optimize=True)
    assert "license Apache-2.0; from http://127.0.0.1" in watched.lines[0]
    assert (added.card.license, added.card.derived_from) == ("Apache-2.0", sha256)
    assert kept(store) == []


def test_a_wrong_hash_leaves_nothing(site: Site, store: ModelStore) -> None:
    with pytest.raises(SourceError, match=f"SHA-256 of what came is {site.sha256}, expected 0000"):
        pull(site.url, store=store, sha256="0" * 64, head="yolox")
    assert list(store.folder.iterdir()) == []


def test_a_wrong_size_leaves_nothing(
    site: Site, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Published(url=site.url, sha256=site.sha256, size_bytes=5)
    monkeypatch.setattr(pulling, "TABLE", {"five": row})
    with pytest.raises(SourceError, match=rf"{len(site.data):,} bytes, expected 5"):
        pull("five", store=store)
    assert list(store.folder.iterdir()) == []


def test_a_missing_file_is_an_error_that_leaves_nothing(site: Site, store: ModelStore) -> None:
    site.status = 404
    with pytest.raises(SourceMissingError, match=r"no such file \(HTTP 404\)"):
        pull(site.url, store=store, sha256=site.sha256)
    assert list(store.folder.iterdir()) == []


def test_a_model_that_is_there_is_not_downloaded(
    site: Site, store: ModelStore, names: Path
) -> None:
    pull(site.url, store=store, sha256=site.sha256, head="yolox", classes=names, name="mine")
    site.log.clear()
    watched = Watched()
    again = pull(unused_url(), store=store, sha256=site.sha256, progress=watched, license="MIT")
    assert watched.lines == ["mine: already in the store; nothing is downloaded"]
    assert (again.card.name, again.card.license, again.card.source) == ("mine", "MIT", site.url)
    assert store.list() == [again]
    assert site.log == []


def test_a_model_that_was_rewritten_is_not_downloaded_again(
    shared_data: Path, site: Site, store: ModelStore
) -> None:
    site.data = (shared_data / "weights" / "yolox_nano.onnx").read_bytes()
    sha256 = hashlib.sha256(site.data).hexdigest()
    made = pull(site.url, store=store, sha256=sha256, dynamic_size=True)
    assert made.card.derived_with == "dynamic-size"
    again = pull(unused_url(), store=store, sha256=sha256, dynamic_size=True, license="MIT")
    assert (again.sha256, again.path, again.card.license) == (made.sha256, made.path, "MIT")
    assert len(site.log) == 1
    with pytest.raises(ModelError, match="the name 'small_net' is taken"):
        pull(site.url, store=store, sha256=sha256, dynamic_size=True, optimize=True)
    pull(site.url, store=store, sha256=sha256, dynamic_size=True, optimize=True, name="faster")
    assert [f.card.derived_with for f in store.list()] == ["dynamic-size optimize", "dynamic-size"]


def test_a_name_that_is_taken_is_said_before_the_download(
    site: Site, store: ModelStore, tmp_path: Path
) -> None:
    other = constant_output(tmp_path / "small_net.onnx", np.ones((84, 8), np.float32))
    store.add(other, head="yolox", classes=["a", "b", "c"])
    watched = Watched()
    for options in ({}, {"name": "small_net"}):
        with pytest.raises(ModelError, match=r"'small_net' is taken by the file .* --name"):
            pull(site.url, store=store, sha256=site.sha256, progress=watched, **options)
    assert (site.log, watched.lines) == ([], [])


@pytest.mark.parametrize("reference", ["ftp://h/a.onnx", "file:///etc/passwd", "s3://b/a.onnx"])
def test_what_can_not_be_pulled_is_refused_before_a_word_also_where_the_store_has_it(
    reference: str, site: Site, store: ModelStore, names: Path
) -> None:
    pull(site.url, store=store, sha256=site.sha256, head="yolox", classes=names)
    watched = Watched()
    for sha256 in (site.sha256, "0" * 64, None):
        with pytest.raises(UsageError, match=r"can be pulled, expected http://, https:// or hf://"):
            pull(reference, store=store, sha256=sha256, progress=watched)
    assert watched.lines == []


def test_a_question_about_a_pulled_file_asks_for_the_pull_again(
    site: Site, store: ModelStore
) -> None:
    with pytest.raises(ModelQuestionError) as asked:
        pull(site.url, store=store, sha256=site.sha256)
    text = str(asked.value)
    assert "Answer with: the same vistadex models pull, with --head yolox|yolov5 --classes" in text
    assert text.endswith("; the file is kept for it")
    assert "models add" not in text
    assert "--try" not in text
    with pytest.raises(ModelError, match=r"has 3 classes.*--classes; then repeat the pull"):
        pull(site.url, store=store, sha256=site.sha256, head="yolox", classes="coco")
    assert len(site.log) == 1


def test_a_file_that_the_store_refuses_is_not_downloaded_again(
    site: Site, store: ModelStore, names: Path
) -> None:
    with pytest.raises(ModelQuestionError):
        pull(site.url, store=store, sha256=site.sha256)
    assert kept(store) == ["small_net.onnx"]
    pull(site.url, store=store, sha256=site.sha256, head="yolox", classes=names)
    assert len(site.log) == 1
    assert kept(store) == []


def test_a_kept_file_that_was_damaged_is_downloaded_again(
    site: Site, store: ModelStore, names: Path
) -> None:
    with pytest.raises(ModelQuestionError):
        pull(site.url, store=store, sha256=site.sha256)
    (damaged,) = store.folder.glob("*.pull/*")
    damaged.write_bytes(b"x")
    added = pull(site.url, store=store, sha256=site.sha256, head="yolox", classes=names)
    assert added.path.read_bytes() == site.data


def test_without_a_network_the_message_says_so_and_what_to_do(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    with pytest.raises(SourceUnavailableError) as caught:
        pull("yolox_nano", store=store)
    assert "no network; connect this machine, then try again; a file from" in str(caught.value)
    assert str(caught.value).endswith(
        "vistadex models add yolox_nano.onnx --head yolox --classes coco --license Apache-2.0"
    )
    assert list(store.folder.iterdir()) == []


def test_the_command_for_a_file_from_elsewhere_has_the_options_that_were_given(
    store: ModelStore, names: Path
) -> None:
    with pytest.raises(SourceUnavailableError) as caught:
        pull(
            unused_url(),
            store=store,
            sha256="0" * 64,
            name="my net",
            head="yolox",
            classes=names,
            size=64,
            dynamic_size=True,
            optimize=False,
        )
    assert str(caught.value).endswith(
        "vistadex models add net.onnx --head yolox "
        f"--classes {names} --name 'my net' --size 64 --dynamic-size"
    )


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://h/a/net.onnx?x=1", "net.onnx"),
        ("https://h/a%2F..%2F..%2Fnet.onnx", "net.onnx"),
        ("https://h/%2e%2e", "model"),
        ("https://h/", "model"),
        ("https://h/a b;rm.onnx", "a_b_rm.onnx"),
        ("https://h/.hidden", "hidden"),
    ],
)
def test_an_address_can_t_choose_a_place_outside_the_store(url: str, name: str) -> None:
    assert Published(url=url, sha256="0" * 64).file_name == name


# Hugging Face


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("hf://me/net/model.onnx", "me/net/resolve/main/model.onnx"),
        ("hf://me/net/onnx/a b.onnx", "me/net/resolve/main/onnx/a%20b.onnx"),
        ("hf://me/net@v1.0/model.onnx", "me/net/resolve/v1.0/model.onnx"),
        ("hf://me/net@refs%2Fpr%2F1/m.onnx", "me/net/resolve/refs%2Fpr%2F1/m.onnx"),
    ],
)
def test_a_hugging_face_file_has_an_address(
    reference: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert address(reference) == f"https://huggingface.co/{path}"
    monkeypatch.setenv("VISTADEX_HF_ENDPOINT", "http://127.0.0.1:1/")
    assert address(reference) == f"http://127.0.0.1:1/{path}"


@pytest.mark.parametrize("reference", ["hf://me", "hf://me/net", "hf://me/net/", "hf:///a/b"])
def test_half_a_hugging_face_reference_is_an_error(reference: str) -> None:
    with pytest.raises(UsageError, match=r"expected hf://owner/repo\[@revision\]/file"):
        address(reference)


def test_a_hugging_face_file_is_pulled_without_the_token_from_elsewhere(
    site: Site, store: ModelStore, names: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("VISTADEX_HF_ENDPOINT", site.url.partition("/files")[0])
    pull(
        "hf://me/net@v1/onnx/m.onnx",
        store=store,
        sha256=site.sha256,
        head="yolox",
        classes=names,
    )
    path, headers = site.log[0]
    assert path == "/me/net/resolve/v1/onnx/m.onnx"
    assert "Authorization" not in headers


def test_the_token_is_for_hugging_face_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert token_for("https://huggingface.co/a") == ""
    monkeypatch.setenv("HF_TOKEN", f"{SECRET}\n")
    assert token_for("https://huggingface.co/a") == SECRET
    monkeypatch.setenv("VISTADEX_HF_TOKEN", "ours")
    assert token_for("https://huggingface.co/a") == "ours"
    for other in ("http://huggingface.co/a", "https://huggingface.co.evil/a", "https://h/a"):
        assert token_for(other) == ""


def test_a_token_that_can_t_be_one_is_an_error_that_does_not_print_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", f"{SECRET}\n{SECRET}")
    with pytest.raises(UsageError, match="HF_TOKEN: not a token") as caught:
        token_for("https://huggingface.co/a")
    assert SECRET not in str(caught.value)


def test_a_refusal_says_how_to_get_in(site: Site, store: ModelStore) -> None:
    site.status = 401
    with pytest.raises(SourceDeniedError, match=r"HTTP 401.*or ask its owner$"):
        pull(site.url, store=store, sha256=site.sha256)
    assert "set HF_TOKEN" in access_hint("https://huggingface.co/a")


# The command


class Ran(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def run_it(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["vistadex", "models", "pull", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return Ran(int(ended.value.code or 0), captured.out, captured.err)

    return run_it


def test_without_a_name_the_command_lists_the_table(run: Any) -> None:
    done = run()
    assert done.code == 0
    for line, (name, row) in zip(done.out.splitlines(), TABLE.items(), strict=True):
        assert line.startswith(f"{name} ")
        assert f"{row.size_bytes:,} bytes  Apache-2.0  {row.url}" in line
    rows = [json.loads(line) for line in run("--json").out.splitlines()]
    assert [row["sha256"] for row in rows] == [row.sha256 for row in TABLE.values()]


def test_the_command_shows_the_license_then_downloads(
    run: Any, site: Site, store: ModelStore, names: Path
) -> None:
    options = ["--sha256", site.sha256, "--head", "yolox", "--classes", str(names)]
    done = run(site.url, *options)
    assert (done.code, done.out) == (0, "small_net: detector, 3 classes\n")
    first, *more = done.err.splitlines()
    assert first.startswith("small_net.onnx: license unknown: check what it allows before use")
    assert more == [f"{len(site.data):,} of {len(site.data):,} bytes"]
    assert [file.card.name for file in store.list()] == ["small_net"]


def test_the_command_prints_the_card_as_json(run: Any, site: Site, names: Path) -> None:
    options = ["--sha256", site.sha256, "--head", "yolox", "--classes", str(names), "--json"]
    done = run(site.url, *options, "--name", "n", "--license", "MIT", "--source", "s")
    card = json.loads(done.out)
    assert (card["name"], card["license"], card["source"]) == ("n", "MIT", "s")
    assert card["sha256"] == site.sha256


def test_exit_codes_say_what_was_wrong(run: Any, site: Site) -> None:
    digits = ["--sha256", "0" * 64]
    assert run("nothing").code == 3
    assert run(site.url).code == 2
    assert run(site.url, *digits).code == 4
    assert run(unused_url(), *digits).code == 4
    done = run(site.url, "--sha256", site.sha256)
    assert done.code == 5
    assert "error: " in done.err
    assert "--head" in done.err


def test_progress_is_a_line_for_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    from vistadex.cli_models import Tenths

    tenths = Tenths()
    for done in (1, 10, 11, 19, 35, 100):
        tenths.update(done, 100)
    tenths.update(5, None)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"{done} of 100 bytes" for done in (10, 35, 100)]
