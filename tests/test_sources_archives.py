"""Archives as sources: listed in key order, read in place, and honest about what is broken."""

import gzip
import io
import json
import pickle
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vistadex
from vistadex.catalog import Catalog
from vistadex.errors import SourceError, SourceMissingError
from vistadex.records import ImageEntry
from vistadex.sources import open_source
from vistadex.testing import RedSquareDetector, scene_jpeg

RED = ("red square", 10, 20, 40)
BLUE = ("blue square", 90, 60, 30)
NAMES = ["z last.jpg", "a b.jpg", "dir/ü %20#?.png", "dir/deep/x.bin", "empty.txt", "/abs.jpg"]
FILES = {name: name.encode() * (i * 3000 + 1) for i, name in enumerate(NAMES)} | {"empty.txt": b""}


def make_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_700_000_000
            archive.addfile(info, io.BytesIO(data))


KINDS: dict[str, Callable[[Path, dict[str, bytes]], None]] = {
    "stored.zip": lambda path, files: make_zip(path, files, zipfile.ZIP_STORED),
    "deflated.zip": make_zip,
    "bzip2.zip": lambda path, files: make_zip(path, files, zipfile.ZIP_BZIP2),
    "plain.tar": make_tar,
    "packed.tar.gz": lambda path, files: make_tar(path, files, "w:gz"),
    "packed.tgz": lambda path, files: make_tar(path, files, "w:gz"),
}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vistadex.sources.retrying.FIRST_WAIT_S", 0.001)


@pytest.fixture(params=KINDS)
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An archive of each kind with FILES."""
    path = tmp_path / request.param
    KINDS[request.param](path, FILES)
    return path


def listed(uri: str | Path) -> list[ImageEntry]:
    return [entry for page in open_source(uri).pages() for entry in page]


def test_members_are_listed_by_name_and_read_back(archive: Path) -> None:
    source = open_source(archive)
    entries = listed(archive)
    assert [one.key for one in entries] == sorted(FILES)
    for one in entries:
        assert one.size_bytes == len(FILES[one.key])
        assert one.failure is None
        content = source.read(one.key)
        assert (content.data, content.version) == (FILES[one.key], one.version)
        assert b"".join(source.chunks(one.key)) == FILES[one.key]
        assert source.read_range(one.key, 3, 11) == FILES[one.key][3:11]
        assert source.read_start(one.key, 64) == FILES[one.key][:64]
        assert source.read_range(one.key, 10**9, 10**9 + 5) == b""
        assert source.stat(one.key) == one
    assert source.uri == str(archive)
    assert source.image_uri("a b.jpg") == f"{archive}/a b.jpg"


def test_a_listing_goes_on_behind_a_key(archive: Path) -> None:
    pages = open_source(archive).pages(after="a b.jpg")
    assert [one.key for page in pages for one in page] == [
        k for k in sorted(FILES) if k > "a b.jpg"
    ]


def test_a_source_travels_as_its_address(archive: Path) -> None:
    source = pickle.loads(pickle.dumps(open_source(archive)))
    assert source.read("a b.jpg").data == FILES["a b.jpg"]


def test_threads_read_at_once(archive: Path) -> None:
    source = open_source(archive)
    wrong: list[str] = []

    def read(names: list[str]) -> None:
        for name in names * 5:
            if source.read(name).data != FILES[name]:
                wrong.append(name)

    threads = [threading.Thread(target=read, args=(NAMES[i:] + NAMES[:i],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@settings(max_examples=25, deadline=None)
@given(
    files=st.dictionaries(
        st.text(
            st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/.\\"),
            min_size=1,
            max_size=40,
        ),
        st.binary(max_size=3000),
        max_size=8,
    ),
    kind=st.sampled_from(list(KINDS)),
)
def test_any_files_come_back(
    files: dict[str, bytes], kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / kind
    KINDS[kind](path, files)
    source = open_source(path)
    assert [one.key for one in listed(path)] == sorted(files)
    assert {name: source.read(name).data for name in files} == files


def test_a_changed_archive_is_read_anew_and_its_old_index_removed(archive: Path) -> None:
    source = open_source(archive)
    assert len(listed(archive)) == len(FILES)
    KINDS[archive.name](archive, {"new.jpg": b"new" * 500})
    assert source.read("new.jpg").data == b"new" * 500
    assert [one.key for one in listed(archive)] == ["new.jpg"]
    with pytest.raises(SourceMissingError, match=r"/a b\.jpg: the archive has no such file"):
        source.read("a b.jpg")


def test_without_a_cache_folder_archives_are_read_all_the_same(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISTADEX_CACHE", "/proc/no-such-folder")
    assert [one.key for one in listed(archive)] == sorted(FILES)


def test_hidden_members_and_what_macos_adds_are_left_out(tmp_path: Path) -> None:
    names = ["a.jpg", ".hidden", "dir/.b.jpg", "__MACOSX/._a.jpg", ".git/c.jpg"]
    for kind, make in KINDS.items():
        make(tmp_path / kind, dict.fromkeys(names, b"x"))
        assert [one.key for one in listed(tmp_path / kind)] == ["a.jpg"]


def test_the_dot_that_tar_writes_before_names_is_no_part_of_them(tmp_path: Path) -> None:
    make_tar(tmp_path / "x.tar", {"./b.jpg": b"b", "./d/a.jpg": b"a"})
    assert [one.key for one in listed(tmp_path / "x.tar")] == ["b.jpg", "d/a.jpg"]
    assert open_source(tmp_path / "x.tar").read("d/a.jpg").data == b"a"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_members_with_one_name_the_last_counts(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.jpg", b"old")
        archive.writestr("a.jpg", b"new one")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for data in (b"old", b"new one"):
            info = tarfile.TarInfo("a.jpg")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    for kind in ("x.zip", "x.tar"):
        assert [one.size_bytes for one in listed(tmp_path / kind)] == [7]
        assert open_source(tmp_path / kind).read("a.jpg").data == b"new one"


def test_links_within_a_tar_are_the_files_they_lead_to(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, kind, target in (
            ("d/early.jpg", tarfile.SYMTYPE, "../a.jpg"),
            ("lost.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
        info = tarfile.TarInfo("a.jpg")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"data"))
        info = tarfile.TarInfo("hard.jpg")
        info.type, info.linkname = tarfile.LNKTYPE, "a.jpg"
        tar.addfile(info)
        info = tarfile.TarInfo("folder")
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    entries = {one.key: one for one in listed(tmp_path / "x.tar")}
    assert set(entries) == {"a.jpg", "hard.jpg", "d/early.jpg", "lost.jpg"}
    source = open_source(tmp_path / "x.tar")
    assert source.read("hard.jpg").data == source.read("d/early.jpg").data == b"data"
    assert entries["lost.jpg"].failure is not None
    assert "'/etc/passwd', which is not in the archive" in entries["lost.jpg"].failure.message


def test_a_long_and_a_foreign_name_are_read(tmp_path: Path) -> None:
    long = "d" * 150 + "/" + "n" * 180 + ".jpg"
    make_tar(tmp_path / "x.tar", {long: b"1"})
    assert [one.key for one in listed(tmp_path / "x.tar")] == [long]
    with tarfile.open(tmp_path / "gnu.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for name in (long, "caf\udce9.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"1"))
    bad, good = listed(tmp_path / "gnu.tar")
    assert (bad.key, good.key) == (r"caf\xe9.jpg", long)
    assert bad.failure is not None
    assert bad.failure.reason == "bad_name"


# --- what is broken


def test_a_damaged_member_of_a_zip_is_one_row(tmp_path: Path) -> None:
    files = {f"{i}.jpg": scene_jpeg([RED]) for i in range(3)}
    make_zip(tmp_path / "x.zip", files, zipfile.ZIP_STORED)
    data = bytearray((tmp_path / "x.zip").read_bytes())
    data[data.index(files["1.jpg"], len(files["1.jpg"])) + 300] ^= 0xFF
    (tmp_path / "x.zip").write_bytes(data)
    catalog = Catalog(tmp_path / "c.db", create=True)
    done = vistadex.index(tmp_path / "x.zip", detector=RedSquareDetector(), catalog=catalog)
    assert (done.indexed, done.failed) == (2, 1)
    (bad,) = catalog.errors()
    assert bad.uri.endswith("x.zip/1.jpg")
    assert "its CRC differs" in bad.message


def test_an_encrypted_member_says_so(tmp_path: Path) -> None:
    make_zip(tmp_path / "x.zip", {"a.jpg": b"data"}, zipfile.ZIP_STORED)
    data = bytearray((tmp_path / "x.zip").read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.zip").write_bytes(data)
    (entry,) = listed(tmp_path / "x.zip")
    assert entry.failure is not None
    assert "it is encrypted; unpack it with its password" in entry.failure.message
    with pytest.raises(SourceError, match="encrypted"):
        open_source(tmp_path / "x.zip").read("a.jpg")


def test_a_member_that_unpacks_to_more_than_it_says_is_refused(tmp_path: Path) -> None:
    make_zip(tmp_path / "x.zip", {"bomb.jpg": bytes(50_000_000)})
    data = bytearray((tmp_path / "x.zip").read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = (1000).to_bytes(4, "little")
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(SourceError, match="damaged"):
        open_source(tmp_path / "x.zip").read("bomb.jpg")


@pytest.mark.parametrize("kept", [0.5, 0.98])
def test_a_zip_without_its_end_is_an_error_with_the_cure(tmp_path: Path, kept: float) -> None:
    make_zip(tmp_path / "x.zip", FILES)
    data = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(SourceError, match=r"x\.zip: has no table of contents.*zip -FF"):
        listed(tmp_path / "x.zip")


@pytest.mark.parametrize("kind", ["x.tar", "x.tar.gz"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_of_a_tar_that_breaks_off_the_readable_part_is_indexed(
    kind: str, kept: float, tmp_path: Path
) -> None:
    import random

    noise = random.Random(0)
    files = {f"{i:02}.jpg": scene_jpeg([RED]) + noise.randbytes(20_000) for i in range(12)}
    make_tar(tmp_path / "whole.tar", files)
    data = (tmp_path / "whole.tar").read_bytes()
    if kind.endswith("gz"):
        data = gzip.compress(data, mtime=0)
    path = tmp_path / kind
    path.write_bytes(data)
    catalog = Catalog(tmp_path / "c.db", create=True)
    vistadex.index(path, detector=RedSquareDetector(), catalog=catalog)
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(SourceError, match=r"breaks off after \d+ files.*fetch it again"):
        vistadex.index(path, detector=RedSquareDetector(), catalog=catalog, only="all")
    stats = catalog.stats()
    assert (stats.images, stats.vanished) == (12, 0)
    with pytest.raises(SourceError, match="breaks off"):
        listed(path)
    new = Catalog(tmp_path / "new.db", create=True)
    with pytest.raises(SourceError, match="breaks off"):
        vistadex.index(path, detector=RedSquareDetector(), catalog=new)
    found = new.stats()
    assert found.images - found.failed >= int(12 * kept) - 2
    assert new.count("red square") == found.images - found.failed


def test_a_damaged_header_in_the_middle_of_a_tar_is_said(tmp_path: Path) -> None:
    make_tar(tmp_path / "x.tar", {f"{i}.jpg": b"x" * 600 for i in range(6)})
    data = bytearray((tmp_path / "x.tar").read_bytes())
    data[3 * 1536 : 3 * 1536 + 200] = b"\xaa" * 200
    (tmp_path / "x.tar").write_bytes(data)
    source = open_source(tmp_path / "x.tar")
    pages = source.pages()
    assert [one.key for one in next(pages)] == ["0.jpg", "1.jpg", "2.jpg"]
    assert source.partial
    with pytest.raises(SourceError, match="breaks off after 3 files"):
        next(pages)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.zip", b"no archive at all", "begins with b'no archi', expected a zip, tar or tar.gz"),
        ("x.zip", b"", "is empty, expected an archive"),
        ("x.tar", b"BZh91AY&SY", "is bzip2, expected a zip"),
        ("x.tar.gz", gzip.compress(b"just text", mtime=0), "is no tar archive"),
        ("x.tgz", b"\x1f\x8b\x08 garbage", "the gzip data is damaged"),
    ],
)
def test_what_is_no_archive_says_what_it_is(
    name: str, data: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match="x\\.") as raised:
        listed(tmp_path / name)
    assert message in str(raised.value)


def test_an_archive_by_another_name_is_what_its_bytes_say(tmp_path: Path) -> None:
    make_tar(tmp_path / "x.zip", FILES)
    make_zip(tmp_path / "y.tar.gz", FILES)
    for name in ("x.zip", "y.tar.gz"):
        assert [one.key for one in listed(tmp_path / name)] == sorted(FILES)


def test_a_missing_archive_is_an_error_at_once_and_a_folder_of_that_name_a_folder(
    tmp_path: Path,
) -> None:
    with pytest.raises(SourceMissingError, match=r"none\.zip: No such file"):
        open_source(tmp_path / "none.zip")
    (tmp_path / "folder.zip").mkdir()
    (tmp_path / "folder.zip" / "a.jpg").write_bytes(b"x")
    assert [one.key for one in listed(tmp_path / "folder.zip")] == ["a.jpg"]


# --- the whole way


def test_an_archive_is_indexed_like_the_folder_that_it_was_made_from(
    archive: Path, tmp_path: Path
) -> None:
    scenes = {"a.jpg": scene_jpeg([RED]), "d/b.jpg": scene_jpeg([RED, BLUE]), "c.jpg": b"broken"}
    KINDS[archive.name](archive, scenes)
    folder = tmp_path / "folder"
    for name, data in scenes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    found = []
    for source in (archive, folder):
        catalog = Catalog(tmp_path / f"{source.name}.db", create=True)
        done = vistadex.index(source, detector=RedSquareDetector(), catalog=catalog)
        assert (done.indexed, done.failed) == (2, 1)
        again = vistadex.index(source, detector=RedSquareDetector(), catalog=catalog)
        assert again.unchanged == 3
        images = sorted(catalog.walk(), key=lambda one: one.key)
        found.append([(one.key, one.width, [box[:3] for box in one.boxes]) for one in images])
        assert catalog.image(f"{source}/d/b.jpg").key == "d/b.jpg"
    assert found[0] == found[1]


def test_a_changed_member_is_looked_at_again(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "c.db", create=True)
    for blue in ([], [BLUE]):
        files = {"a.jpg": scene_jpeg([RED]), "b.jpg": scene_jpeg([RED, *blue])}
        make_zip(tmp_path / "x.zip", files)
        done = vistadex.index(tmp_path / "x.zip", detector=RedSquareDetector(), catalog=catalog)
    assert (done.indexed, done.unchanged) == (1, 1)
    assert catalog.count("blue square") == 1


def test_an_archive_in_a_bucket_is_read_in_place(
    archive: Path, tmp_path: Path, aws: pytest.MonkeyPatch, s3_server: str
) -> None:
    client = boto3.client("s3", endpoint_url=s3_server)
    bucket = "archives-" + archive.name.replace(".", "-")
    client.create_bucket(Bucket=bucket)
    client.upload_file(str(archive), bucket, f"sets/{archive.name}")
    uri = f"s3://{bucket}/sets/{archive.name}"
    source = open_source(uri)
    assert [one.key for one in listed(uri)] == sorted(FILES)
    assert {name: source.read(name).data for name in FILES} == FILES
    assert source.uri == uri
    with pytest.raises(SourceMissingError, match=r"none\.zip"):
        listed(f"s3://{bucket}/none.zip")


def test_several_sources_of_every_kind_are_indexed_in_one_call(
    tmp_path: Path, aws: pytest.MonkeyPatch, s3_server: str
) -> None:
    picture = scene_jpeg([RED])
    (tmp_path / "folder").mkdir()
    for name in ("folder/a.jpg", "lone.jpg"):
        (tmp_path / name).write_bytes(picture)
    make_zip(tmp_path / "x.zip", {"b.jpg": picture})
    make_tar(tmp_path / "x.tgz", {"c.jpg": picture}, "w:gz")
    client = boto3.client("s3", endpoint_url=s3_server)
    client.create_bucket(Bucket="several")
    client.put_object(Bucket="several", Key="p/d.jpg", Body=picture)
    client.put_object(Bucket="several", Key="e.jpg", Body=picture)
    rows = [{"url": "lone.jpg", "camera": 7}, {"url": "s3://several/e.jpg", "camera": 8}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    catalog = Catalog(tmp_path / "c.db", create=True)
    sources = [tmp_path / name for name in ("folder", "x.zip", "x.tgz", "list.jsonl")]
    for number in (6, 0):
        done = vistadex.index(
            *sources, "s3://several/p", detector=RedSquareDetector(), catalog=catalog
        )
        assert (done.images, done.indexed, done.failed) == (6, number, 0)
    assert catalog.count("red square") == 6
    assert catalog.count("red square camera:8") == 1
    assert catalog.image("s3://several/e.jpg").attributes == {"camera": 8}
