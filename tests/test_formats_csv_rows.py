"""Rows of CSV files: where they begin and end, and what is damage."""

from __future__ import annotations

import csv
import gzip
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vistadex.formats.csv_rows import LONGEST_ROW, csv_rows


def rows(path: Path, data: bytes) -> list[tuple[int, list[str] | str]]:
    path.write_bytes(data)
    return [(row.line, row.wrong or row.fields) for row in csv_rows(str(path))]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_rows_have_the_line_where_they_begin(tmp_path: Path, pack: type[bytes]) -> None:
    data = b'\xef\xbb\xbfa,b\r\n\n"1\n2",3\n4,"5""6"'
    expected = [(1, ["a", "b"]), (3, ["1\n2", "3"]), (5, ["4", '5"6'])]
    assert rows(tmp_path / "a.csv", pack(data)) == expected


def test_a_quotation_mark_within_a_value_is_part_of_it(tmp_path: Path) -> None:
    data = b'a,5" disc\nb,6" disc\nc,d\n'
    expected = [(1, ["a", '5" disc']), (2, ["b", '6" disc']), (3, ["c", "d"])]
    assert rows(tmp_path / "a.csv", data) == expected


def test_an_open_quotation_mark_costs_its_own_line_only(tmp_path: Path) -> None:
    found = rows(tmp_path / "a.csv", b'a,"b\nc,d\n' + b"e,f\n" * 3)
    assert [line for line, _ in found] == [1, 2, 3, 4, 5]
    assert "no CSV" in found[0][1]
    assert found[1:] == [(2, ["c", "d"]), *((line, ["e", "f"]) for line in (3, 4, 5))]


@pytest.mark.parametrize(
    ("line", "what"),
    [(b"a\xff", "UTF-8"), (b"a\0", "NUL"), (b"a" * (LONGEST_ROW + 9), "a row of more than")],
)
def test_a_line_that_is_no_text_is_told_and_the_next_is_read(
    tmp_path: Path, line: bytes, what: str
) -> None:
    found = rows(tmp_path / "a.csv", b"x,y\n" + line + b"\nc,d\n")
    assert (found[0], found[-1]) == ((1, ["x", "y"]), (3, ["c", "d"]))
    assert what in found[1][1]
    assert [line for line, _ in found] == [1, 2, 3]


@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))),
        max_size=6,
    )
)
def test_what_the_csv_module_writes_is_read_as_it_was(table: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(table)
    with tempfile.TemporaryDirectory() as folder:
        found = rows(Path(folder) / "a.csv", text.getvalue().encode())
    assert [fields for _, fields in found] == [row for row in table if any(row)]
