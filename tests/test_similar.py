"""Images like a picture: by whatever model's vectors, by a part, a file, and color without any."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from vistadex import Catalog, cli_similar, find_similar, index
from vistadex.cli import app
from vistadex.decoding import decode
from vistadex.decoding.color_layout import VALUES, color_layout
from vistadex.errors import DecodingError, ModelError, NotFoundError, QueryError, UsageError
from vistadex.finding_similar import analyzer_of, cropped, embedded, read_box
from vistadex.models.color_layout import NAME, ColorLayout
from vistadex.models.store import ModelStore
from vistadex.models.tiny import mean_color
from vistadex.records import DecodedImage, Embedding

COLORS = {
    "red1": (220, 20, 20),
    "red2": (200, 30, 30),
    "green": (20, 200, 30),
    "blue1": (20, 30, 200),
    "blue2": (30, 20, 220),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Plain pictures in known colors, and one that is red on the left and blue on the right."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, color in COLORS.items():
        Image.new("RGB", (120, 80), color).save(folder / f"{name}.png")
    both = Image.new("RGB", (200, 100), COLORS["red1"])
    both.paste(COLORS["blue1"], (100, 0, 200, 100))
    both.save(folder / "both.png")
    return folder


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(str(tmp_path / "catalog.db"), create=True) as catalog:
        yield catalog


@pytest.fixture
def embedder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an embedder in the store: the mean color of a picture."""
    monkeypatch.setenv("VISTADEX_MODELS", str(tmp_path / "models"))
    path = mean_color(tmp_path / "mean.onnx", np.eye(3, dtype=np.float32) * 4)
    said = {"preset": "ultralytics", "resize": "stretch", "name": "mean"}
    ModelStore(tmp_path / "models").add(path, head="embedding", **said)  # type: ignore[arg-type]
    return "mean"


def names(page: object) -> list[str]:
    return [Path(one.image.key).stem for one in page.results]  # type: ignore[attr-defined]


def id_of(catalog: Catalog, folder: Path, name: str) -> int:
    return catalog.image(str(folder / f"{name}.png")).id


def test_similar_images_come_most_similar_first_without_the_image_itself(
    catalog: Catalog, folder: Path, embedder: str
) -> None:
    index(folder, embedder=embedder, catalog=catalog)
    page = catalog.similar(id_of(catalog, folder, "red1"))
    assert names(page)[0] == "red2"
    assert "red1" not in names(page)
    assert (page.model, page.by_content, page.images, len(page.results)) == ("mean", True, 6, 5)
    found = [one.similarity for one in page.results]
    assert found == sorted(found, reverse=True)
    assert names(catalog.similar(id_of(catalog, folder, "red1"), limit=1)) == ["red2"]


def test_a_query_narrows_what_is_found(catalog: Catalog, folder: Path, embedder: str) -> None:
    index(folder, embedder=embedder, catalog=catalog)
    red = id_of(catalog, folder, "red1")
    assert len(catalog.similar(red, query=f'source:"{folder}"').results) == 5
    assert catalog.similar(red, query="model:mean").results == ()
    with pytest.raises(QueryError, match="frisbee"):
        catalog.similar(red, query="frisbee")


def test_a_catalog_without_embeddings_says_what_to_run(catalog: Catalog, folder: Path) -> None:
    with pytest.raises(NotFoundError, match="--embedder color-layout, which needs no model"):
        catalog.similar(1)
    with pytest.raises(NotFoundError, match="vistadex index SOURCE --embedder MODEL"):
        catalog.embedders()


def test_an_image_that_no_embedder_has_seen_says_so(
    catalog: Catalog, folder: Path, embedder: str
) -> None:
    (folder / "bad.png").write_bytes(b"no picture")
    index(folder, embedder=embedder, catalog=catalog)
    with pytest.raises(NotFoundError, match="mean has not looked at it"):
        catalog.similar(catalog.errors()[0].id)
    with pytest.raises(NotFoundError, match="no such image"):
        catalog.similar(999)
    with pytest.raises(NotFoundError, match="no embedder is named 'other'; there are: mean"):
        catalog.similar(1, model="other")


@pytest.mark.parametrize("limit", [0, 1001])
def test_a_limit_out_of_range_is_refused(catalog: Catalog, limit: int) -> None:
    with pytest.raises(UsageError, match="expected 1 to 1000"):
        catalog.similar(1, limit=limit)


@pytest.mark.parametrize("vector", [np.empty(0), np.ones((2, 3)), np.array([1, np.nan, 1])])
def test_what_is_no_vector_is_refused(
    catalog: Catalog, folder: Path, embedder: str, vector: np.ndarray
) -> None:
    index(folder, embedder=embedder, catalog=catalog)
    with pytest.raises(UsageError, match="expected one row of finite values"):
        catalog.similar(vector)


def test_content_is_compared_before_color_and_color_says_what_it_is(
    catalog: Catalog, folder: Path, embedder: str
) -> None:
    index(folder, embedder="color-layout", catalog=catalog)
    red = id_of(catalog, folder, "red1")
    page = catalog.similar(red)
    assert (page.model, page.by_content) == ("color-layout", False)
    assert names(page)[0] == "red2"
    index(folder, embedder=embedder, catalog=catalog)
    assert catalog.similar(red).model == "mean"
    assert catalog.similar(red, model="color-layout").by_content is False
    assert [one.name for one in catalog.embedders()] == ["mean", "color-layout"]


@pytest.mark.parametrize("which", ["mean", "color-layout"])
def test_a_box_is_compared_alone(catalog: Catalog, folder: Path, embedder: str, which: str) -> None:
    index(folder, embedder=which, catalog=catalog)
    both = id_of(catalog, folder, "both")
    left = find_similar(both, box=(0, 0, 100, 100), limit=2, catalog=catalog)
    right = find_similar(both, box=(100, 0, 200, 100), limit=2, catalog=catalog)
    assert set(names(left)) == {"red1", "red2"}
    assert set(names(right)) == {"blue1", "blue2"}


def test_a_file_that_the_catalog_lacks_is_embedded_and_not_kept(
    catalog: Catalog, folder: Path, embedder: str, tmp_path: Path
) -> None:
    index(folder, embedder=embedder, catalog=catalog)
    other = tmp_path / "other.jpg"
    Image.new("RGB", (300, 200), (10, 190, 40)).save(other)
    page = find_similar(other, limit=1, catalog=catalog)
    assert names(page) == ["green"]
    assert page.results[0].similarity > 0.99
    assert catalog.stats().images == 6


def test_a_path_of_the_catalog_means_its_image(
    catalog: Catalog, folder: Path, embedder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(folder, embedder=embedder, catalog=catalog)
    monkeypatch.chdir(folder)
    for given in ("red1.png", str(folder / "red1.png"), id_of(catalog, folder, "red1")):
        page = find_similar(given, catalog=catalog)
        assert names(page)[0] == "red2"
        assert "red1" not in names(page)


def test_the_same_model_gives_a_file_the_vector_that_it_gave_the_image(
    catalog: Catalog, folder: Path, embedder: str
) -> None:
    index(folder, embedder=embedder, catalog=catalog)
    (known,) = catalog.embedders()
    vector = embedded(known, (folder / "blue1.png").read_bytes())
    found = catalog.similar(vector, limit=1)
    assert names(found) == ["blue1"]
    assert found.results[0].similarity == pytest.approx(1, abs=1e-3)


def test_a_model_that_is_gone_is_named_with_the_cure(
    catalog: Catalog, folder: Path, embedder: str, tmp_path: Path
) -> None:
    index(folder, embedder=embedder, catalog=catalog)
    ModelStore(tmp_path / "models").remove("mean")
    assert names(catalog.similar(id_of(catalog, folder, "red1")))[0] == "red2"
    with pytest.raises(ModelError, match="mean: the model that made the catalog's embeddings"):
        find_similar(folder / "both.png", box=(0, 0, 9, 9), catalog=catalog)


def test_a_card_that_was_changed_is_refused(
    catalog: Catalog, folder: Path, embedder: str, tmp_path: Path
) -> None:
    index(folder, embedder=embedder, catalog=catalog)
    (card,) = (tmp_path / "models").glob("*.json")
    said = json.loads(card.read_text())
    said["input"]["color"] = "BGR"
    card.write_text(json.dumps(said))
    with pytest.raises(ModelError, match="was changed since"):
        analyzer_of(catalog.embedders()[0])


@pytest.mark.parametrize(
    "box", [(5, 5, 5, 9), (9, 9, 2, 2), (200, 0, 300, 50), (-9, -9, 0, 0), (0, 0, np.nan, 3)]
)
def test_a_box_without_an_area_in_the_picture_is_refused(
    box: tuple[float, float, float, float],
) -> None:
    picture = DecodedImage(np.zeros((100, 200, 3), np.uint8), 200, 100)
    with pytest.raises(UsageError, match="box"):
        cropped(picture, box)


def test_a_box_is_cut_at_the_edges_and_covers_the_pixels_it_touches() -> None:
    picture = DecodedImage(np.arange(60, dtype=np.uint8).reshape(4, 5, 3), 5, 4)
    part = cropped(picture, (-3, 1.5, 2.2, 99))
    assert np.array_equal(part.pixels, picture.pixels[1:4, 0:3])
    assert (part.width, part.height) == (3, 3)


@pytest.mark.parametrize("text", ["", "1,2,3", "a,b,c,d", "1,2,3,4,5"])
def test_what_is_no_box_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected x0,y0,x1,y1"):
        read_box(text)


def test_a_file_that_is_no_picture_is_refused_by_name(
    catalog: Catalog, folder: Path, tmp_path: Path
) -> None:
    index(folder, embedder="color-layout", catalog=catalog)
    (tmp_path / "x.jpg").write_bytes(b"not a picture")
    with pytest.raises(DecodingError, match=r"x\.jpg: "):
        find_similar(tmp_path / "x.jpg", catalog=catalog)
    for name in ("nowhere.jpg", "x" * 5000, "a\0b"):
        with pytest.raises(NotFoundError, match="no such image"):
            find_similar(name, catalog=catalog)


@pytest.mark.slow
def test_real_embeddings_find_pictures_of_the_same_kind(
    catalog: Catalog, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the ten nearest of each picture far more show the same thing than by chance."""
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setenv("VISTADEX_MODELS", str(tmp_path / "models"))
    name = "coral_mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
    file = shared_data / "weights" / name
    ModelStore(tmp_path / "models").add(file, head="embedding", name="extractor")
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    kinds = ("n01440764", "n03028079", "n03888257")
    for kind in kinds:
        for path in sorted((shared_data / "imagenette").glob(f"{kind}_*"))[:25]:
            (chosen / path.name).symlink_to(path)
    index(chosen, embedder="extractor", catalog=catalog)
    same = []
    for image in catalog.walk():
        found = catalog.similar(image.id, limit=10)
        same += [one.image.key[:9] == image.key[:9] for one in found.results]
    assert np.mean(same) > 0.85
    first = min(catalog.walk(), key=lambda image: image.key)
    page = find_similar(chosen / first.key, box=(0, 0, first.width, first.height), catalog=catalog)
    kind = [one.image.key[:9] == first.key[:9] for one in page.results[:10]]
    assert np.mean(kind) > 0.5


def test_color_layout_tells_where_colors_are() -> None:
    left = np.zeros((60, 80, 3), np.uint8)
    left[:, :40] = (220, 30, 30)
    right = left[:, ::-1]
    bigger = np.repeat(np.repeat(left, 3, axis=0), 3, axis=1)
    vectors = [color_layout(one) for one in (left, right, bigger)]
    assert all(one.shape == (VALUES,) and one.dtype == np.float32 for one in vectors)
    assert float(vectors[0] @ vectors[2]) == pytest.approx(1, abs=1e-3)
    assert float(vectors[0] @ vectors[1]) < 0.9


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (700, 2), (64, 64)])
def test_color_layout_is_of_unit_length_for_any_shape(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert float(np.linalg.norm(color_layout(pixels))) == pytest.approx(1, abs=1e-5)


def test_color_layout_hardly_changes_with_the_scale_of_decoding(shared_data: Path) -> None:
    path = sorted((shared_data / "coco" / "images" / "val").glob("*.jpg"))[0]
    whole, small = decode(path.read_bytes()), decode(path.read_bytes(), min_short_side=64)
    assert small.pixels.shape[0] < whole.pixels.shape[0]
    assert float(color_layout(whole.pixels) @ color_layout(small.pixels)) > 0.995


def test_color_layout_needs_no_model_and_no_store() -> None:
    analyzer = ColorLayout()
    assert (analyzer.name, analyzer.task, analyzer.parameters) == (NAME, "embedder", {})
    pixels = np.full((70, 90, 3), 200, np.uint8)
    (found,) = analyzer.load().analyze([DecodedImage(pixels, 90, 70)])
    assert isinstance(found, Embedding)


def test_the_command_has_the_names_and_defaults_of_the_library() -> None:
    def options(function: Callable[..., object]) -> dict[str, object]:
        parameters = inspect.signature(function).parameters.values()
        return {one.name: one.default for one in parameters if one.name != "json_"}

    assert options(cli_similar.similar) == options(find_similar)


def test_the_command_prints_lines_or_json(
    catalog: Catalog, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(folder, embedder="color-layout", catalog=catalog)
    place = ["--catalog", catalog.place]
    runner = CliRunner()
    both = str(folder / "both.png")
    shown = runner.invoke(app, ["similar", both, "--box", "0,0,100,100", "--limit", "2", *place])
    assert shown.exit_code == 0, shown.output
    assert "red1.png" in shown.stdout
    assert "2 of 6 images, by color-layout: colors and their layout" in shown.stderr
    shown = runner.invoke(app, ["similar", both, "--limit", "1", "--json", *place])
    page = json.loads(shown.stdout)
    assert (page["model"], page["by_content"], page["images"]) == ("color-layout", False, 6)
    assert set(page["results"][0]) == {"similarity", "image"}
