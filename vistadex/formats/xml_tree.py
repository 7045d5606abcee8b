"""XML as a tree whose elements know their lines; document types and their entities are refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat


@dataclass(frozen=True, slots=True)
class Element:
    """One element, without its attributes."""

    tag: str
    line: int
    children: list[Element] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """As it stands; where it is set on lines of its own, without the space around it."""
        text = "".join(self.pieces)
        return text.strip() if "\n" in text else text

    def first(self, tag: str) -> Element | None:
        """The first child of that name."""
        return next(self.all(tag), None)

    def all(self, tag: str) -> Iterator[Element]:
        """Every child of that name."""
        return (child for child in self.children if child.tag == tag)

    def text_at(self, *tags: str) -> str | None:
        """The text of the first child of the first child …; None where there is none."""
        at: Element | None = self
        for tag in tags:
            at = at.first(tag) if at is not None else None
        return at.text if at is not None else None


@dataclass(frozen=True, slots=True)
class Damage:
    """Why bytes are no XML that is read here."""

    line: int
    found: str


class _DoctypeError(Exception):
    """A document type was met."""


def parse_xml(data: bytes) -> Element | Damage:
    """The root element, or what is wrong where."""
    parser = expat.ParserCreate()
    top = Element("", 0)
    open_elements = [top]

    def start(tag: str, _: dict[str, str]) -> None:
        element = Element(tag, parser.CurrentLineNumber)
        open_elements[-1].children.append(element)
        open_elements.append(element)

    def refuse(*_: object) -> None:
        raise _DoctypeError

    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: open_elements.pop()
    parser.CharacterDataHandler = lambda text: open_elements[-1].pieces.append(text)
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except _DoctypeError:
        return Damage(parser.CurrentLineNumber, "a document type (<!DOCTYPE …>), which is not read")
    except expat.ExpatError as error:
        what = expat.ErrorString(error.code)
        return Damage(error.lineno, f"{what} at column {error.offset + 1}")
    except (LookupError, ValueError) as error:
        return Damage(1, f"an encoding that can't be read ({error})")
    return top.children[0]
