"""A database server for one run of catalog_speed.py: Debian's own, on a private port and folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import measuring

sys.path.insert(0, str(measuring.ROOT))

from tests import databases

SETTINGS = {
    "postgresql": {"shared_buffers": "2GB", "max_wal_size": "8GB"},
    "mariadb": {"innodb-buffer-pool-size": "2G", "innodb-log-file-size": "1G"},
}
"""What docs/databases.md tells users to set; all else is as Debian ships it."""


@contextmanager
def started(name: str) -> Iterator[str]:
    """The address of an empty database on a new server, which ends with the run.

    Raises: SystemExit where the server is not installed.
    """
    try:
        with databases.STARTED[name](SETTINGS[name]) as server:
            yield server.empty()
    except databases.Missing as error:
        sys.exit(f"{error}: apt-get install {name}")
