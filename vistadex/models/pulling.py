"""Models from the web: a table of public files, any address, or Hugging Face, into the store."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol, Unpack, cast
from urllib.parse import quote, unquote, urlsplit

from vistadex import downloads, settings
from vistadex.errors import (
    ModelError,
    ModelQuestionError,
    NotFoundError,
    SourceDeniedError,
    SourceUnavailableError,
    UsageError,
)
from vistadex.models.cards import ModelFile, file_sha256
from vistadex.models.known import KNOWN
from vistadex.models.recognition import ADD, question_of_a_pull
from vistadex.models.store import AddOptions, ModelStore, rewriting

_HF_HOST = "huggingface.co"
_HF_REFERENCE = re.compile(r"hf://([^/@]+/[^/@]+)(?:@([^/]+))?/([^/].*)")
_YOLOX = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0"
_SAY_SHA256 = (
    "expected the 64 hex digits that its publisher states (Hugging Face shows them on the file's "
    "page), or download it by hand and run `sha256sum FILE`; what an address gives can change, and "
    "what is found is said of exactly one file"
)


class PullProgress(Protocol):
    """Told what is being pulled, and how much has come."""

    def say(self, line: str) -> None:
        """One line for the person: the license, or that the file is there already."""
        ...

    def update(self, done: int, whole: int | None) -> None:
        """So many bytes have come, of so many (None: not stated)."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A file on the web whose bytes are known."""

    url: str
    sha256: str
    size_bytes: int | None = None
    options: AddOptions = field(default_factory=AddOptions)
    """What is certain about it."""

    @property
    def file_name(self) -> str:
        """The last part of the address, as a file may be called everywhere."""
        last = PurePosixPath(unquote(urlsplit(self.url).path)).name
        return re.sub(r"[^\w.-]", "_", last).lstrip(".") or "model"


def _yolox(name: str, size_bytes: int, sha256: str) -> Published:
    options = AddOptions(
        name=name, head="yolox", task="detector", classes="coco", license="Apache-2.0"
    )
    return Published(
        url=f"{_YOLOX}/{name}.onnx", sha256=sha256, size_bytes=size_bytes, options=options
    )


TABLE: Mapping[str, Published] = {
    "yolox_nano": _yolox(
        "yolox_nano", 3_659_407, "c789161ed43c8269fcd4e67c67eeeb4e80c622da2eb296a20bc6007bd18a0b7d"
    ),
    "yolox_tiny": _yolox(
        "yolox_tiny", 20_219_662, "427cc366d34e27ff7a03e2899b5e3671425c262ea2291f88bb942bc1cc70b0f7"
    ),
    "yolox_s": _yolox(
        "yolox_s", 35_858_002, "c5c2d13e59ae883e6af3b45daea64af4833a4951c92d116ec270d9ddbe998063"
    ),
}
"""Public models by name; each address, size and SHA-256 is recorded in several public projects."""


def pull(
    reference: str,
    *,
    store: ModelStore,
    sha256: str | None = None,
    progress: PullProgress | None = None,
    **options: Unpack[AddOptions],
) -> ModelFile:
    """Downloads a model, unless the store has it, and adds it to the store.

    A download that broke off is gone on with by the next call. A file that the store refuses, as
    when its head is not known, is kept beside the store's files for the next call too.

    Args:
        reference: a name of TABLE, an http(s) address, or hf://owner/repo[@revision]/file.
        sha256: of the file; needed unless the name is one of TABLE.
        options: as of ModelStore.add; they go over what is known.
    Raises: UsageError, NotFoundError for a reference that says too little; SourceError if the file
        can't be had or is another one; ModelError as ModelStore.add.
    """
    published = find(reference, sha256)
    given = _said(options)
    stored = _stored(published, given, store)
    if stored is not None:
        _say(progress, f"{stored.card.name}: already in the store; nothing is downloaded")
        if stored.card.derived_from == published.sha256:  # it is rewritten already
            given = {**given, "dynamic_size": False, "optimize": False}
        return store.add(stored.path, **given)
    chosen = _said({"source": downloads.shown(published.url), **published.options, **given})
    store.check_name(chosen.get("name") or Path(published.file_name).stem, published.sha256)
    _say(progress, _notice(published, chosen.get("license") or _known_license(published)))
    folder = store.folder / f"{published.sha256}.pull"
    file = folder / published.file_name
    if not file.exists() or file_sha256(file) != published.sha256:
        _download(published, file, given, progress)
    added = _added(store, file, chosen)
    file.unlink(missing_ok=True)
    with suppress(OSError):  # another call may be at work in it
        folder.rmdir()
    return added


def find(reference: str, sha256: str | None = None) -> Published:
    """The file that is meant.

    Raises: NotFoundError for an unknown name; UsageError if the SHA-256 is missing, malformed, or
        not the table's.
    """
    known = TABLE.get(reference)
    if known is None and "://" not in reference:
        raise NotFoundError(
            f"{reference!r}: no such model in the table, expected one of {', '.join(TABLE)}, an "
            "http(s) address or hf://owner/repo/file; for a file that is here: vistadex models add"
        )
    if sha256 is None and known is not None:
        return known
    url = known.url if known else address(reference)
    if sha256 is None:
        raise UsageError(f"{downloads.shown(url)}: --sha256 is missing, {_SAY_SHA256}")
    if not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise UsageError(f"--sha256 {sha256!r}: not a SHA-256, {_SAY_SHA256}")
    if known is None:
        return Published(url=url, sha256=sha256.lower())
    if sha256.lower() != known.sha256:
        raise UsageError(
            f"{reference}: --sha256 is {sha256.lower()}, expected {known.sha256}; leave it out, or "
            "give the address of the other file"
        )
    return known


def address(reference: str) -> str:
    """The http(s) address of a URL or of hf://owner/repo[@revision]/file.

    Raises: UsageError for anything else.
    """
    if urlsplit(reference).scheme.lower() in ("http", "https"):
        return reference
    if not reference.startswith("hf://"):
        raise UsageError(
            f"{downloads.shown(reference)}: not an address that can be pulled, expected http://, "
            "https:// or hf://; a file that you have: vistadex models add FILE"
        )
    found = _HF_REFERENCE.fullmatch(reference)
    if found is None:
        raise UsageError(f"{reference}: not readable, expected hf://owner/repo[@revision]/file")
    repo, revision, file = found.groups()
    endpoint = settings.value("hf_endpoint", None, str).rstrip("/")
    place = f"{quote(repo)}/resolve/{quote(revision or 'main', safe='%')}/{quote(file)}"
    return f"{endpoint}/{place}"


def token_for(url: str) -> str:
    """The Hugging Face token where the address is Hugging Face's own; else empty."""
    split = urlsplit(url)
    return settings.hf_token() if (split.scheme, split.netloc) == ("https", _HF_HOST) else ""


def access_hint(url: str) -> str:
    """What else helps on Hugging Face, which also refuses what does not exist; else empty."""
    if urlsplit(url).netloc != _HF_HOST:
        return ""
    return (
        "; on Hugging Face check the names of repository and file, accept its license on its page "
        "where it has one to accept, and set HF_TOKEN"
    )


def _stored(published: Published, given: AddOptions, store: ModelStore) -> ModelFile | None:
    """The file itself, or what was made from it with the options that are given."""
    made_with = rewriting(given.get("dynamic_size", False), given.get("optimize", False))
    derived = store.find_derived(published.sha256, made_with) if made_with else None
    return derived or store.find(published.sha256)


def _added(store: ModelStore, file: Path, chosen: AddOptions) -> ModelFile:
    """The pulled file in the store; what is wrong with it says to repeat the pull."""
    try:
        return store.add(file, **chosen)
    except ModelQuestionError as error:
        raise ModelQuestionError(question_of_a_pull(str(error), file)) from error
    except ModelError as error:
        raise ModelError(f"{error}; then repeat the pull, the file is kept for it") from error


def _download(
    published: Published, file: Path, given: AddOptions, progress: PullProgress | None
) -> None:
    url = published.url
    try:
        downloads.download(
            url,
            file,
            sha256=published.sha256,
            size_bytes=published.size_bytes,
            progress=progress.update if progress else None,
            bearer=token_for(url),
        )
    except SourceUnavailableError as error:
        kept = "; the same command goes on with what has come" if any(_kept(file)) else ""
        raise SourceUnavailableError(
            f"{error}{kept}; a file from elsewhere is added by hand: {_by_hand(published, given)}"
        ) from error
    except SourceDeniedError as error:
        raise SourceDeniedError(f"{error}{access_hint(url)}") from error
    finally:
        with suppress(OSError):  # it holds what has come, or was never made
            file.parent.rmdir()


def _kept(file: Path) -> Iterator[Path]:
    """What has come of a download that broke off."""
    return file.parent.glob("*.part")


def _by_hand(published: Published, given: AddOptions) -> str:
    """The command that adds the file once it is on this machine."""
    known = {key: published.options.get(key) for key in ("head", "classes", "license")}
    words = []
    for key, value in {**known, **given}.items():
        flag = f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            words += [flag] * value
        elif isinstance(value, str | int | Path):
            words += [flag, shlex.quote(str(value))]
    return " ".join([ADD, published.file_name, *words])


def _known_license(published: Published) -> str | None:
    card = KNOWN.get(published.sha256)
    return card.license if card else None


def _notice(published: Published, license: str | None) -> str:
    size = "" if published.size_bytes is None else f", {published.size_bytes:,} bytes"
    terms = f"license {license}" if license else "license unknown: check what it allows before use"
    return f"{published.file_name}: {terms}; from {downloads.shown(published.url)}{size}"


def _said(options: AddOptions) -> AddOptions:
    """The options that say something."""
    said = {key: value for key, value in options.items() if value is not None}
    return cast("AddOptions", said)


def _say(progress: PullProgress | None, line: str) -> None:
    if progress is not None:
        progress.say(line)
