"""What differs from one database to another: a contract that sqlite, postgresql, mysql keep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

SCHEMA_LOCK_S = 120
"""How long a process waits for another one that is making or upgrading the tables."""


@contextmanager
def as_statement(connection: sa.Connection, statement: str) -> Iterator[None]:
    """Errors of the driver inside, which runs without SQLAlchemy here, as SQLAlchemy's."""
    try:
        yield
    except connection.dialect.loaded_dbapi.Error as error:
        raise sa.exc.DBAPIError(statement, None, error) from error


class Database(ABC):
    """One kind of database.

    A connection's execution option `write` says that a transaction writes to the catalog: it is
    alone from its first statement on. `schema` says that it makes tables. Else it reads: it sees
    one state of the catalog and never waits for a writer; `patient` says that a statement may take
    any time, `latest` that tables may have been made since it began.
    """

    driver: str
    """The module whose errors are this database's."""

    @abstractmethod
    def engine(self, url: sa.URL, *, create: bool) -> sa.Engine:
        """An engine for a catalog's address.

        Raises: UsageError for an address that can't be one, or where its driver is not installed.
        """

    @abstractmethod
    def place(self, url: sa.URL) -> str:
        """The address as messages show it: without password, and without options."""

    @abstractmethod
    def cure(self, error: BaseException) -> str | None:
        """What is wrong and what to do, of an error of the driver; None: it is not known."""

    @abstractmethod
    def is_passing(self, error: BaseException) -> bool:
        """Whether the transaction would do if run again: a lost connection, a deadlock."""

    def missing(self, url: sa.URL) -> str | None:
        """Why there can't be a catalog before anything is asked of the database; None: it may."""
        return None

    @contextmanager
    def schema_lock(self, connection: sa.Connection) -> Iterator[None]:
        """Only one process at a time makes or upgrades tables."""
        yield
