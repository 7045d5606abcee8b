"""Types of columns that mean the same on every database, to the byte."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles

from vistadex.errors import CatalogError

MOST_NAME_BYTES = 2600
"""What PostgreSQL (2,704) and InnoDB (3,072) can index, less what an index needs beside."""
NUL, INSTEAD_OF_NUL = "\0", "\N{REPLACEMENT CHARACTER}"


class Nullable(NamedTuple):
    """Rows' values of a column of numbers, of which one stands for NULL."""

    values: NDArray[Any]
    unknown: int


class Name(sa.types.TypeDecorator[str]):
    """Text that is compared and sorted byte by byte (UTF-8), trailing spaces and case included.

    Text of collation "C" on PostgreSQL, VARBINARY on MySQL, SQLite's own text on SQLite.
    """

    impl = sa.String
    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        super().__init__(length)
        self.length = length
        """In characters, for SQLite's schema, which does not hold to it."""

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """The type of the column on this database."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.Text(collation="C"))
        if dialect.name == "mysql":
            return dialect.type_descriptor(mysql.VARBINARY(MOST_NAME_BYTES))
        return dialect.type_descriptor(sa.String(self.length))

    def bind_processor(self, dialect: sa.Dialect) -> Any:
        """What makes of a text what the driver is given; None: nothing is to be made."""
        if dialect.name == "sqlite":
            return None
        return _storable_bytes if dialect.name == "mysql" else _storable

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Any:
        """What makes a text of what the driver gives; None: it is one."""
        return _decoded if dialect.name == "mysql" else None


def _storable(text: str | None) -> str | None:
    """Raises: CatalogError for a name that no server can hold or index."""
    if text is None:
        return None
    if len(text) * 4 > MOST_NAME_BYTES and len(text.encode()) > MOST_NAME_BYTES:
        raise CatalogError(
            f"{text[:60]!r}...: a name of {len(text.encode()):,} bytes, expected at most "
            f"{MOST_NAME_BYTES:,}, which is what database servers can index; shorten it, or keep "
            "this catalog in SQLite"
        )
    if NUL in text:
        raise CatalogError(
            f"{text[:60]!r}: a name with a NUL character, which database servers can't hold; "
            "rename it, or keep this catalog in SQLite"
        )
    return text


def _storable_bytes(text: str | None) -> bytes | None:
    return None if text is None else str(_storable(text)).encode()


def _decoded(stored: bytes | None) -> str | None:
    return None if stored is None else stored.decode()


class Prose(sa.types.TypeDecorator[str]):
    """Text for people, of any length; a NUL character, which PostgreSQL can't hold, becomes U+FFFD.

    Nothing is looked up or sorted by it.
    """

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """The type of the column on this database."""
        kind = mysql.LONGTEXT() if dialect.name == "mysql" else sa.Text()
        return dialect.type_descriptor(kind)

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """The text as every database can hold it."""
        return value.replace(NUL, INSTEAD_OF_NUL) if value and NUL in value else value


def packed(most_bytes: int | None = None) -> sa.types.TypeEngine[bytes]:
    """Bytes: up to 255 as a short column, else of any length, where MySQL would stop at 64 KB."""
    if most_bytes is not None and most_bytes < 256:
        return sa.LargeBinary(most_bytes).with_variant(mysql.VARBINARY(most_bytes), "mysql")
    return sa.LargeBinary(most_bytes).with_variant(mysql.LONGBLOB(), "mysql")


_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_SIGNS = re.compile(r"\\u0000|[\ud800-\udfff]")


def dumped(value: Any) -> str:
    """JSON that every database can hold: no NUL, no half of a surrogate pair; U+FFFD instead."""
    # Letters as they are: where they are escaped, MariaDB and SQLite don't find them as names.
    text = json.dumps(value, ensure_ascii=False)
    return json.dumps(_cleaned(value), ensure_ascii=False) if _SIGNS.search(text) else text


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return _UNSTORABLE.sub(INSTEAD_OF_NUL, value)
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(one) for key, one in value.items()}
    return [_cleaned(one) for one in value] if isinstance(value, (list, tuple)) else value


class _Member(sa.sql.functions.GenericFunction[str]):
    """Args: the column, and the member's name, without quotes and backslashes."""

    type = Name()
    inherit_cache = True

    def __init__(self, column: sa.ColumnElement[Any], name: str) -> None:
        path = f'$."{name}"'
        super().__init__(column, sa.literal(path, sa.String), sa.literal(name, sa.String))


class attribute_text(_Member):
    """A member of a JSON object as text: a number as it was written, true or false."""

    inherit_cache = True


class attribute_member(_Member):
    """Something that is NULL only where a JSON object, if there is any, has no such member."""

    inherit_cache = True


@compiles(attribute_member)
def _member_by_operator(element: attribute_member, compiler: Any, **options: Any) -> str:
    column, _, name = element.clauses
    return f"({compiler.process(column, **options)} -> {compiler.process(name, **options)})"


@compiles(attribute_member, "sqlite")
def _member_on_sqlite(element: attribute_member, compiler: Any, **options: Any) -> str:
    column, path = (compiler.process(one, **options) for one in list(element.clauses)[:2])
    return f"json_type({column}, {path})"


@compiles(attribute_member, "mysql")
def _member_on_mysql(element: attribute_member, compiler: Any, **options: Any) -> str:
    column, path = (compiler.process(one, **options) for one in list(element.clauses)[:2])
    return f"JSON_EXTRACT({column}, {path})"


@compiles(attribute_text)
def _by_operator(element: attribute_text, compiler: Any, **options: Any) -> str:
    column, _, name = element.clauses
    return f"({compiler.process(column, **options)} ->> {compiler.process(name, **options)})"


@compiles(attribute_text, "sqlite")
def _on_sqlite(element: attribute_text, compiler: Any, **options: Any) -> str:
    """SQLite's own way makes 1 of true and loses digits of numbers; asked twice, it gives JSON.

    [7.0,7.0] has the text once in (length - 3) / 2 letters; -> would need SQLite 3.38.
    """
    column, path = (compiler.process(one, **options) for one in list(element.clauses)[:2])
    twice = f"json_extract({column}, {path}, {path})"
    return (
        f"CASE json_type({column}, {path}) WHEN 'null' THEN NULL "
        f"WHEN 'text' THEN json_extract({column}, {path}) "
        f"ELSE substr({twice}, 2, (length({twice}) - 3) / 2) END"
    )


@compiles(attribute_text, "mysql")
def _on_mysql(element: attribute_text, compiler: Any, **options: Any) -> str:
    column, path = (compiler.process(one, **options) for one in list(element.clauses)[:2])
    member = f"JSON_EXTRACT({column}, {path})"
    return (
        f"CASE JSON_TYPE({member}) WHEN 'NULL' THEN NULL "
        f"ELSE CAST(JSON_UNQUOTE({member}) AS BINARY) END"
    )
