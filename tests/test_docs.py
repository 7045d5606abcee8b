"""The documentation: pages of one kind have the same headings, and links lead somewhere."""

import re
from pathlib import Path

import pytest

from vistadex.formats import FORMATS
from vistadex.models.heads import DETECTORS
from vistadex.sources import FILES, SCHEMES

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def headings(text: str) -> list[str]:
    return re.findall(r"^## (.+)$", text, re.MULTILINE)


@pytest.mark.parametrize("kind", ["sources", "models", "formats"])
def test_pages_of_a_kind_have_the_same_headings(kind: str) -> None:
    pages = sorted((ROOT / "docs" / kind).glob("*.md"))
    found = {page.name: headings(page.read_text(encoding="utf-8")) for page in pages}
    first = next(iter(found.values()))
    assert {name: one for name, one in found.items() if one != first} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        assert other.exists(), f"{page.name}: {target}"
        if anchor:
            lines = re.findall(r"^#+ (.+)$", other.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}
            assert anchor in anchors, f"{page.name}: {target}"


def test_every_format_head_and_source_has_a_page() -> None:
    docs = ROOT / "docs"
    for name in FORMATS:
        assert (docs / "formats" / f"{name}.md").exists(), name
    heads = "".join(page.read_text(encoding="utf-8") for page in (docs / "models").glob("*.md"))
    for name in DETECTORS:
        assert f"`{name}`" in heads, name
    sources = (docs / "sources.md").read_text(encoding="utf-8")
    pages = "".join(page.read_text(encoding="utf-8") for page in (docs / "sources").glob("*.md"))
    for scheme in set(SCHEMES) - {"memory"}:
        assert f"{scheme}://" in sources + pages, scheme
    for ending in FILES:
        assert ending in pages, ending
