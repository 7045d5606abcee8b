"""vistadex.sources.spool: rows come back sorted, whatever came in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vistadex.sources.spool import Spool


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.text("ab"))))
def test_a_spool_gives_back_every_row_by_rising_key(rows: list[tuple[str, str]]) -> None:
    with Spool() as spool:
        for key, value in rows:
            spool.add(key, value)
        assert list(spool.items()) == sorted(dict(rows).items())
        assert spool.duplicates == len(rows) - len(dict(rows))
        groups = list(spool.groups())
        assert sorted((key, one) for key, values in groups for one in values) == sorted(rows)
        for key, _ in rows:
            expected = sorted(pair for pair in dict(rows).items() if pair[0] > key)
            assert list(spool.items(key)) == expected
            assert dict(groups)[key] == [value for other, value in rows if other == key]


def test_a_spool_goes_on_past_its_batch() -> None:
    with Spool() as spool:
        for i in range(2500):
            spool.add(f"{i % 2000:04}", str(i))
        assert [value for _, value in spool.items()][498:501] == ["2498", "2499", "500"]
        assert (spool.rows, spool.duplicates) == (2500, 500)
