"""The HTTP API keeps to its own description: Schemathesis asks every route odd and usual things."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.web_catalog import filled_catalog, pictures_folder
from vistadex.catalog import Catalog
from vistadex.web import create_app

folder = pytest.fixture(scope="module")(pictures_folder)
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)


@pytest.fixture(scope="module")
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("schema")


@pytest.fixture(scope="module")
def catalog(folder: Path, tmp_path: Path) -> Iterator[Catalog]:
    yield from filled_catalog(folder, tmp_path)


@pytest.fixture(scope="module")
def described(catalog: Catalog, tmp_path: Path) -> Any:
    app = create_app(catalog, tmp_path / "cache", hosts=None)
    return schemathesis.openapi.from_asgi("/openapi.json", app)


LIMITS = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.slow
def test_every_route_answers_as_it_is_described(described: Any) -> None:
    """All routes of the description, so that a new one needs no test of its own here."""
    problems = []
    labels = []
    for found in described.get_all_operations():
        operation = found.ok()
        labels.append(operation.label)
        try:
            ask(operation)
        except Exception as error:  # or the first bad route would hide the others
            problems.append(f"{operation.label}: {error}")
    assert "GET /api/v1/search" in labels
    assert not problems, "\n\n".join(problems)


def ask(operation: Any) -> None:
    """Asks a route with what its description allows, and with what it does not."""

    @LIMITS
    @given(case=operation.as_strategy())
    def usual(case: Any) -> None:
        case.call_and_validate(checks=CHECKS)

    @LIMITS
    @given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def odd(case: Any) -> None:
        case.call_and_validate(checks=CHECKS)

    usual()
    with suppress(Unsatisfiable):  # a route without parameters can be asked in one way
        odd()
