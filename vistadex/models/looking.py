"""A model file on one picture, without storing it: does it find what is there?"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Unpack, cast

from vistadex.decoding import decode
from vistadex.errors import DecodingError, NotFoundError, UsageError
from vistadex.models.analyzers import load_once
from vistadex.models.cards import ModelCard
from vistadex.models.store import AddOptions, ModelStore
from vistadex.records import DecodedImage, Result


class Look(NamedTuple):
    """What a model says of one picture."""

    card: ModelCard
    """As `add` would store it."""
    image: DecodedImage
    """At full size."""
    result: Result


def look(store: ModelStore, file: Path, image: Path, **said: Unpack[AddOptions]) -> Look:
    """What a model file finds in a picture with the card that `store.add` would give it.

    Raises: as store.add does; NotFoundError or UsageError if the picture can't be read;
        DecodingError if it is none.
    """
    try:
        picture = decode(image.read_bytes())
    except FileNotFoundError as error:
        raise NotFoundError(f"{image}: no such file; expected a picture") from error
    except OSError as error:
        raise UsageError(f"{image}: can't be read ({error.strerror})") from error
    except DecodingError as error:
        raise DecodingError(error.reason, f"{image}: {error}") from error
    with store.prepared(file, **said) as ready:
        result = cast("Result", load_once(ready, str(file)).analyze([picture])[0])
    return Look(ready.card, picture, result)
