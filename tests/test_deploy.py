"""The files of deploy/: what they say is what the program has."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from tests.test_web_browser import serving
from vistadex import cli
from vistadex.catalog import Catalog
from vistadex.settings import table

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


def container() -> dict[str, Any]:
    found: dict[str, Any] = documents("kubernetes.yaml")[0]["spec"]["template"]["spec"]
    return found


def serve_options() -> set[str]:
    command = typer.main.get_command(cli.app).commands["serve"]  # type: ignore[attr-defined]
    return {name for option in command.params for name in option.opts}


def commands() -> list[list[str]]:
    """Every command line of `vistadex serve` in the files."""
    image = re.search(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert image is not None
    compose = documents("compose.yaml")[0]["services"]["web"]["command"]
    return [yaml.safe_load(image[1]), compose, container()["containers"][0]["args"]]


def test_every_command_serves_with_known_options_and_a_token() -> None:
    known = serve_options()
    for command in commands():
        assert command[0] == "serve"
        options = {word for word in command if word.startswith("--")}
        assert options <= known
        assert "--token" in options


def test_the_token_is_where_the_files_put_it() -> None:
    compose, services = documents("compose.yaml")[0], documents("compose.yaml")[0]["services"]
    assert set(services["web"]["secrets"]) == set(compose["secrets"])
    for command in commands()[:2]:
        assert command[command.index("--token") + 1] == "/run/secrets/vistadex-token"
    spec = container()
    mounts = {one["name"]: one["mountPath"] for one in spec["containers"][0]["volumeMounts"]}
    args = spec["containers"][0]["args"]
    assert args[args.index("--token") + 1] == mounts["token"] + "/token"


def test_every_variable_is_a_setting() -> None:
    known = {f"VISTADEX_{setting.name.upper()}" for setting in table()}
    for path in (DEPLOY / "Dockerfile", DEPLOY / "compose.yaml", DEPLOY / "kubernetes.yaml"):
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"\bVISTADEX_[A-Z_]+", text)) <= known, path.name


def test_nothing_runs_as_root() -> None:
    user = re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE)
    context = container()["securityContext"]
    assert user == [str(context["runAsUser"])]
    assert context["runAsNonRoot"]
    own = container()["containers"][0]["securityContext"]
    assert not own["allowPrivilegeEscalation"]
    assert own["readOnlyRootFilesystem"]


def test_volumes_services_and_ports_hang_together() -> None:
    compose = documents("compose.yaml")[0]
    for name, service in compose["services"].items():
        for volume in service.get("volumes", ()):
            assert volume.partition(":")[0] in compose["volumes"], name
        assert set(service.get("depends_on", ())) <= set(compose["services"])
    deployment, service, ingress = documents("kubernetes.yaml")
    spec = container()
    volumes = {one["name"] for one in spec["volumes"]}
    assert {one["name"] for one in spec["containers"][0]["volumeMounts"]} == volumes
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
    path = ingress["spec"]["rules"][0]["http"]["paths"][0]
    assert path["backend"]["service"]["name"] == service["metadata"]["name"]


def test_the_extras_of_the_image_are_there() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = re.search(r'"\.\[([a-z,-]+)\]"', DOCKERFILE)
    assert extras is not None
    assert set(extras[1].split(",")) <= set(project["optional-dependencies"])
    for name in re.findall(r"^COPY (.+)$", DOCKERFILE.partition("\nFROM")[0], re.MULTILINE):
        for part in name.split()[:-1]:
            assert (ROOT / part).exists(), part


def test_what_is_copied_into_the_image_is_not_ignored() -> None:
    kept = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    build = DOCKERFILE.partition("\nFROM")[0]
    copied = {
        part
        for line in re.findall(r"^COPY (.+)$", build, re.MULTILINE)
        for part in line.split()[:-1]
    }
    assert copied <= kept


def test_the_health_check_fails_where_nothing_answers() -> None:
    found = re.search(r"HEALTHCHECK .*?CMD (\[.*?\])$", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert found is not None
    python, flag, code = yaml.safe_load(found[1])
    assert (python, flag) == ("python", "-c")
    assert "/health" in code
    nobody = code.replace(":8765/", ":1/")
    assert nobody != code
    ended = subprocess.run([sys.executable, "-c", nobody], capture_output=True, check=False)
    assert ended.returncode == 1


def test_the_health_check_passes_where_a_server_answers(tmp_path: Path) -> None:
    found = re.search(r"HEALTHCHECK .*?CMD (\[.*?\])$", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert found is not None
    code = yaml.safe_load(found[1])[2]
    catalog = Catalog(str(tmp_path / "c.db"), create=True)
    with catalog, serving(catalog, tmp_path / "cache") as url:
        here = code.replace("http://127.0.0.1:8765/", url + "/")
        assert here != code
        subprocess.run([sys.executable, "-c", here], check=True, timeout=30)


def test_every_service_and_container_says_what_it_needs() -> None:
    services = documents("compose.yaml")[0]["services"]
    for name, service in services.items():
        assert {"build", "image"} & set(service), name
        for other, condition in service.get("depends_on", {}).items():
            needs_check = condition["condition"] == "service_healthy"
            assert not needs_check or "healthcheck" in services[other], name
    kinds = [(one["apiVersion"], one["kind"]) for one in documents("kubernetes.yaml")]
    assert kinds == [
        ("apps/v1", "Deployment"),
        ("v1", "Service"),
        ("networking.k8s.io/v1", "Ingress"),
    ]
    probe = container()["containers"][0]["readinessProbe"]["httpGet"]
    assert probe["path"] == "/health"
    ports = {one["name"] for one in container()["containers"][0]["ports"]}
    assert probe["port"] in ports


def test_what_the_user_of_the_image_writes_is_mounted_or_its_own() -> None:
    folders = set(re.findall(r"VISTADEX_\w+=(/\w+)", DOCKERFILE))
    assert folders == {"/data", "/cache"}
    owned = re.search(r"install -d -o (\w+) -g \w+ (.+)$", DOCKERFILE, re.MULTILINE)
    assert owned is not None
    assert set(owned[2].split()) == folders
    mounts = {one["mountPath"] for one in container()["containers"][0]["volumeMounts"]}
    assert folders | {"/tmp"} <= mounts
    web = documents("compose.yaml")[0]["services"]["web"]
    assert {one.partition(":")[2] for one in web["volumes"]} == folders
    assert web["read_only"]
    assert web["tmpfs"] == ["/tmp"]


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "kubernetes.yaml"])
def test_every_file_is_in_the_documentation(name: str) -> None:
    assert f"deploy/{name}" in (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
