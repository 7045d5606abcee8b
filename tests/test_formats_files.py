"""Annotation files as bytes: found wherever they are, and written whole or not at all."""

import gzip
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest

from vistadex.errors import FormatError, SourceMissingError
from vistadex.formats.files import created, opened

DATA = bytes(range(256)) * 40_000


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves a folder without saying so."""

    def log_message(self, *args: object) -> None:
        pass


def content(path: Path | str) -> bytes:
    with opened(str(path)) as file:
        return file.read()


def test_a_local_file_is_read_by_path_and_by_address(tmp_path: Path) -> None:
    (tmp_path / "a b.json").write_bytes(b"[]")
    assert content(tmp_path / "a b.json") == b"[]"
    assert content(f"file://{tmp_path}/a%20b.json") == b"[]"


def test_gzip_is_unpacked_whatever_the_name(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(gzip.compress(DATA))
    with opened(str(tmp_path / "a.json")) as file:
        assert file.read() == DATA
        file.seek(2)
        assert file.read(2) == DATA[2:4]


@pytest.mark.parametrize(
    "data", [gzip.compress(DATA, mtime=0)[:-9], b"\x1f\x8b\x08nothing at all", b"\x1f\x8b"]
)
def test_damaged_gzip_is_an_error_that_says_so(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.json.gz").write_bytes(data)
    with pytest.raises(FormatError, match=r"a\.json\.gz: the gzip data is damaged or breaks off"):
        content(tmp_path / "a.json.gz")


def test_what_is_not_there_or_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceMissingError, match="no such file; check the path"):
        content(tmp_path / "none.json")
    with pytest.raises(FormatError, match="is a folder, expected a file"):
        content(tmp_path)


def test_an_object_of_a_bucket_is_read_in_pieces(
    aws: pytest.MonkeyPatch, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = boto3.client("s3", endpoint_url=s3_server)
    client.create_bucket(Bucket="annotations")
    client.put_object(Bucket="annotations", Key="a/large.json", Body=DATA)
    client.put_object(Bucket="annotations", Key="a/packed", Body=gzip.compress(DATA))
    monkeypatch.setattr("vistadex.sources.s3.CHUNK_BYTES", 1 << 20)
    assert content("s3://annotations/a/large.json") == DATA
    assert content("s3://annotations/a/packed") == DATA
    with pytest.raises(SourceMissingError, match="s3://annotations/a/none"):
        content("s3://annotations/a/none")


def test_a_file_of_a_web_server_is_read(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.json").write_bytes(DATA)
    handler = partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        root = f"http://127.0.0.1:{server.server_port}"
        try:
            assert content(f"{root}/sub/a.json") == DATA
            with pytest.raises(SourceMissingError, match=f"{root}/none.json"):
                content(f"{root}/none.json")
        finally:
            server.shutdown()
            thread.join()


def test_a_text_appears_when_it_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    with created(out) as file:
        file.write("é\n")
        assert not out.exists()
    assert out.read_bytes() == b"\xc3\xa9\n"
    assert list(tmp_path.iterdir()) == [out]


def test_writing_below_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def write() -> None:
        with created(tmp_path / "file" / "a.json"):
            pass

    with pytest.raises(FormatError, match=r"file/a\.json: .*expected to write"):
        write()


def test_nothing_is_left_of_a_text_that_was_not_completed(tmp_path: Path) -> None:
    def broken() -> None:
        with created(tmp_path / "a.json.gz") as file:
            file.write("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert list(tmp_path.iterdir()) == []
