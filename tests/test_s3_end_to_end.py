"""A bucket, from the command line to the picture on the page."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest

import vistadex
from vistadex.catalog import Catalog
from vistadex.testing import RedSquareDetector, scene_jpeg

RED = ("red square", 10, 20, 40)


@pytest.fixture
def bucket(s3_server: str, aws: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """A bucket of its own for each test, with three pictures and a broken one."""
    name = f"bucket-{abs(hash(request.node.name)):x}"
    resource = boto3.resource("s3", endpoint_url=s3_server, region_name="us-east-1")
    made = resource.create_bucket(Bucket=name)
    for key in ("a b.jpg", "sub/ü.jpg", "sub/100%.jpg"):
        made.put_object(Key=f"photos/{key}", Body=scene_jpeg([RED]))
    made.put_object(Key="photos/sub/broken.jpg", Body=scene_jpeg([RED])[:200])
    made.put_object(Key="elsewhere/other.jpg", Body=scene_jpeg([]))
    return made


def test_a_bucket_is_indexed_searched_changed_and_shown(bucket: Any, tmp_path: Path) -> None:
    uri = f"s3://{bucket.name}/photos"
    with Catalog(str(tmp_path / "c.db"), create=True) as catalog:
        summary = vistadex.index(uri, detector=RedSquareDetector(), catalog=catalog)
        assert (summary.images, summary.indexed, dict(summary.failures)) == (4, 3, {"truncated": 1})
        found = {result.image.uri for result in catalog.search("red square").results}
        assert found == {f"{uri}/{key}" for key in ("a b.jpg", "sub/ü.jpg", "sub/100%.jpg")}
        bucket.put_object(Key="photos/a b.jpg", Body=scene_jpeg([]))
        bucket.Object("photos/sub/ü.jpg").delete()
        summary = vistadex.index(uri, detector=RedSquareDetector(), catalog=catalog)
        assert (summary.indexed, summary.unchanged, summary.vanished) == (1, 2, 1)
        assert catalog.image(f"{uri}/sub/ü.jpg").status == "vanished"


def test_the_page_shows_pictures_of_a_bucket(bucket: Any, tmp_path: Path) -> None:
    from starlette.testclient import TestClient

    from vistadex.web.app import create_app

    uri = f"s3://{bucket.name}/photos"
    with Catalog(str(tmp_path / "c.db"), create=True) as catalog:
        vistadex.index(uri, detector=RedSquareDetector(), catalog=catalog)
        client = TestClient(create_app(catalog, tmp_path / "cache"), base_url="http://127.0.0.1")
        results = client.get("/api/v1/search", params={"q": "red square"}).json()["results"]
        assert len(results) == 3
        for result in results:
            thumbnail = client.get(f"/thumbnail/{result['id']}")
            assert (thumbnail.status_code, thumbnail.headers["content-type"]) == (200, "image/jpeg")
            assert client.get(f"/picture/{result['id']}").content == scene_jpeg([RED])
        bucket.Object("photos/a b.jpg").delete()
        gone = next(one["id"] for one in results if one["uri"].endswith("a b.jpg"))
        answer = client.get(f"/picture/{gone}")
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "SourceMissingError")
        assert client.get(f"/thumbnail/{gone}").status_code == 200  # from the cache


def command(*arguments: str, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "vistadex", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        env={**os.environ, **environment},
    )


def test_the_command_indexes_a_bucket(bucket: Any, tmp_path: Path, shared_data: Path) -> None:
    weights = str(shared_data / "weights" / "yolox_nano.onnx")
    pictures = sorted((shared_data / "coco" / "images" / "val").iterdir())[:5]
    for picture in pictures:
        bucket.put_object(Key=f"coco/{picture.name}", Body=picture.read_bytes())
    options = ("--catalog", str(tmp_path / "c.db"), "--json")
    uri = f"s3://{bucket.name}/coco"
    done = command("index", uri, "--detector", weights, *options, cwd=tmp_path)
    assert json.loads(done.stdout)["indexed"] == 5
    done = command("show", f"{uri}/{pictures[0].name}", *options, cwd=tmp_path)
    assert json.loads(done.stdout)["uri"] == f"{uri}/{pictures[0].name}"
    assert (tmp_path / f"{pictures[0].stem}.boxes.jpg").exists()


@pytest.mark.parametrize(
    ("uri", "environment", "message"),
    [
        ("s3://no-such-bucket-here/x", {}, "no-such-bucket-here"),
        ("s3://", {}, "bucket"),
        ("s3://some/x", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "127.0.0.1:9"),
        ("s3://some/x", {"AWS_PROFILE": "nobody"}, "nobody"),
    ],
)
def test_what_is_wrong_with_a_bucket_is_said_in_a_line(
    aws: pytest.MonkeyPatch,
    tmp_path: Path,
    shared_data: Path,
    uri: str,
    environment: dict[str, str],
    message: str,
) -> None:
    weights = str(shared_data / "weights" / "yolox_nano.onnx")
    options = ("--detector", weights, "--catalog", str(tmp_path / "c.db"))
    done = command("index", uri, *options, cwd=tmp_path, **environment)
    assert done.returncode in (2, 4)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
