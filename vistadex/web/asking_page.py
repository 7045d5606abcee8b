"""The page Ask: each picture that is dropped there as a card with boxes and bars, kept if asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from vistadex.jsonable import Box
from vistadex.web import asking, keeping, pages, uploads
from vistadex.web.askable import FLOOR, Askable, Offer
from vistadex.web.asking import USUAL_MIN_SCORE, Answer, AskedFile, Looked, TheFiles


class PageQuestion(BaseModel):
    """What the form of the page says."""

    model: Annotated[str, Field(max_length=300)] = ""
    """Kind and name, as detect/yolox_nano."""
    min_score: Annotated[float, Field(ge=FLOOR, le=1, allow_inf_nan=False)] = USUAL_MIN_SCORE


@dataclass(frozen=True, slots=True)
class Row:
    """A bar of a card, and its box."""

    class_name: str
    score: float
    box: Box | None
    hidden: bool


@dataclass(frozen=True, slots=True)
class Card:
    """One file on the page."""

    file: AskedFile
    preview: str
    rows: list[Row]
    kept: int | None = None
    """The image of the catalog that it has become."""

    @property
    def hidden(self) -> int:
        """Rows below the minimum."""
        return sum(row.hidden for row in self.rows)


def cards(
    answer: Answer, previews: Sequence[str], min_score: float, kept: Sequence[int | None] = ()
) -> list[Card]:
    """An answer as cards, on which what is less sure is hidden, to be shown by a script.

    Args:
        kept: the images that the files have become; empty: none.
    """
    found: list[Card] = []
    images = kept or [None] * len(previews)
    for file, preview, image in zip(answer["files"], previews, images, strict=True):
        pairs: list[tuple[str, float, Box | None]] = [
            (one["class"], one["score"], one["box"]) for one in file["boxes"]
        ] or [(one["class"], one["score"], None) for one in file["classes"]]
        rows = [Row(*one, hidden=one[1] < min_score) for one in pairs]
        found.append(Card(file, preview, rows, image))
    return found


def start(request: Request) -> Response:
    """A place to drop pictures, and the models that can be asked about them."""
    return _page(request, PageQuestion())


def ask(request: Request, sent: TheFiles) -> Response:
    """What a model says of pictures that were sent: a card for each."""
    question = uploads.read_fields(sent, PageQuestion)
    askable: Askable = request.app.state.askable
    offer = asking.chosen(askable, askable.offers(), question.model)
    looked = asking.look(askable, offer, sent.files, previews=True)
    return _answer(request, question, offer, looked)


def keep(request: Request, sent: TheFiles) -> Response:
    """The same, of pictures that are kept with it."""
    question = uploads.read_fields(sent, PageQuestion)
    place = keeping.keeping(request)
    askable: Askable = request.app.state.askable
    offer = keeping.offer_of(askable, question.model)
    looked = asking.look(askable, offer, sent.files, previews=True)
    kept = [one["image"] for one in place.keep(looked)]
    return _answer(request, question, offer, looked, kept)


def _answer(
    request: Request,
    question: PageQuestion,
    offer: Offer,
    looked: Looked,
    kept: Sequence[int | None] = (),
) -> Response:
    answer = asking.answered(looked, FLOOR)
    shown = cards(answer, looked.previews, question.min_score, kept)
    return _page(request, question, offer, shown)


def _page(
    request: Request,
    question: PageQuestion,
    chosen: Offer | None = None,
    cards: Sequence[Card] = (),
) -> Response:
    state = request.app.state
    offers = state.askable.offers()
    if chosen is None and offers:
        chosen = asking.chosen(state.askable, offers, "")
    return pages.rendered(
        request,
        "ask.html",
        question=question,
        offers=offers,
        chosen=chosen,
        cards=cards,
        limits=asking.LIMITS,
        floor=FLOOR,
        keeps=state.keeping is not None,
    )
