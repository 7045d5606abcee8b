"""The architecture: which module may import which, and which library lives where."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import vistadex

PACKAGE = Path(vistadex.__file__).parent

LAYERS = [
    {"errors", "progress"},
    {"registry", "settings"},
    {"records"},
    {"boxes", "grammar", "neighbors"},
    {"metrics"},
    {"duplicates", "relations", "splitting"},
    {"connections"},
    {"downloads"},
    {"decoding"},
    {"sources", "models"},
    {"formats", "labelers"},
    {"testing"},
    {"engines", "catalog"},
    {"shards", "drawing", "jsonable", "origins"},
    {"planning", "fitting"},
    {"loading"},
    {"assembling", "finding_duplicates"},
    {"finding_similar"},
    {"annotated"},
    {"evaluating"},
    {"training"},
    {"quantizing"},
    {"converting"},
    {"indexing", "importing", "exporting", "comparing", "copying", "relating", "datasets"},
    {"web"},
    {"bars"},
    {"console"},
    {
        "cli_models",
        "cli_annotations",
        "cli_collections",
        "cli_search",
        "cli_datasets",
        "cli_duplicates",
        "cli_evaluate",
        "cli_quantize",
        "cli_similar",
        "cli_train",
        "cli_catalog",
    },
    {"cli"},
    {"__main__"},
]
"""Left may not import right; modules of one layer do not import each other."""

HOMES = {
    "sqlalchemy": {"catalog"},
    "alembic": {"catalog"},
    "psycopg": {"catalog"},
    "pymysql": {"catalog"},
    "onnxruntime": {"models", "quantizing"},
    "onnx": {"converting", "models", "quantizing", "training"},
    "torch": {"training"},
    "tensorboardX": {"training"},
    "cv2": {"decoding", "labelers", "models", "testing", "training"},
    "PIL": {"decoding", "drawing", "web"},
    "obstore": {"sources"},
    "botocore": {"sources", "labelers"},
    "boto3": {"labelers"},
    "google": {"labelers", "models"},
    "grpc": {"labelers"},
    "urllib3": {"downloads", "connections"},
    "pyarrow": {"sources", "formats"},
    "ijson": {"formats"},
    "yaml": {"formats"},
    "pillow_heif": {"decoding"},
    "openvino": {"models"},
    "ai_edge_litert": {"converting", "models"},
    "fastapi": {"web"},
    "starlette": {"web"},
    "uvicorn": {"web"},
    "prometheus_client": {"web"},
    "jinja2": {"evaluating", "web"},
    "typer": {
        "cli",
        "cli_models",
        "cli_annotations",
        "cli_collections",
        "cli_search",
        "cli_datasets",
        "cli_duplicates",
        "cli_evaluate",
        "cli_quantize",
        "cli_similar",
        "cli_train",
        "cli_catalog",
        "console",
    },
    "rich": {"bars"},
}


def modules() -> dict[Path, str]:
    """Every source file with the name of the part it belongs to."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part != "__init__":
            found[path] = part
    return found


def imported(path: Path) -> set[str]:
    """Every module that a file imports anywhere, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
            if node.module == "vistadex":
                names.update(f"vistadex.{alias.name}" for alias in node.names)
    return names


def test_imports_point_one_way() -> None:
    level = {part: i for i, layer in enumerate(LAYERS) for part in layer}
    wrong = []
    for path, part in modules().items():
        assert part in level, f"{part} is not in LAYERS"
        for name in imported(path):
            other = name.split(".")[1] if name.startswith("vistadex.") else part
            if other != part and level[other] >= level[part]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {}
    for path in modules():
        name = ".".join(["vistadex", *path.relative_to(PACKAGE).with_suffix("").parts])
        graph[name.removesuffix(".__init__")] = path
    edges = {name: runtime_imports(path, set(graph)) - {name} for name, path in graph.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join([*trail, name])
        if name not in done:
            for other in edges[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def runtime_imports(path: Path, known: set[str]) -> set[str]:
    """Modules of the package that a file imports when it is imported."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                names.add(whole if whole in known else node.module)
    return names & known


def test_each_heavy_library_has_one_home() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path, part in modules().items()
        for name in imported(path)
        if (home := HOMES.get(name.split(".")[0])) and part not in home
    ]
    assert wrong == []


def test_importing_vistadex_loads_nothing_heavy() -> None:
    code = "import sys, vistadex; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not set(loaded.stdout.split()) & {*HOMES, "numpy"}


def test_the_environment_is_read_in_settings_alone() -> None:
    readers = {
        path.name
        for path in modules()
        if re.search(r"os\.environ|os\.getenv|getenv\(", path.read_text(encoding="utf-8"))
    }
    assert readers == {"settings.py"}


def test_no_module_is_longer_than_600_lines() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert {path.name: length for path, length in lengths.items() if length > 600} == {}


def test_public_names_exist() -> None:
    for name in vistadex.__all__:
        assert getattr(vistadex, name) is not None
    assert dir(vistadex) == sorted(vistadex.__all__)
