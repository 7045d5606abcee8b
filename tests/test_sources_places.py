"""Addresses: the one way to write each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vistadex.sources.places import AddressError, Places, address, file_address


@pytest.mark.parametrize(
    ("text", "folder", "expected"),
    [
        ("a b%20#?.jpg", "file:///x%20y/", "file:///x%20y/a%20b%2520%23%3F.jpg"),
        ("../a.jpg", "file:///x/y/", "file:///x/a.jpg"),
        ("file://localhost/%C3%A9.jpg", "file:///x/", "file:///%C3%A9.jpg"),
        ("../a b?.jpg", "https://h/x%20/y/", "https://h/x%20/a%20b%3F.jpg"),
        ("./a//b.jpg", "s3://b/x//", "s3://b/x//a//b.jpg"),
        ("HTTPS://H/a.jpg?x=%20&y#z", "s3://b/", "https://h/a.jpg?x=%20&y"),
        ("https://H:443/A.jpg#", "s3://b/", "https://h/A.jpg"),
        ("http://h:80?x=1#/a", "s3://b/", "http://h/?x=1"),
        ("http://h:/a.jpg", "s3://b/", "http://h/a.jpg"),
        ("http://h:443/a.jpg", "s3://b/", "http://h:443/a.jpg"),
        ("https://h/a.jpg#z", "s3://b/", "https://h/a.jpg"),
        ("https://h?x=1", "s3://b/", "https://h/?x=1"),
        ("S3A://b/a%20b", "file:///", "s3://b/a%20b"),
        ("gs://b/x/../y", "file:///", "gs://b/x/../y"),
    ],
)
def test_an_address_is_written_in_one_way(text: str, folder: str, expected: str) -> None:
    assert address(text, folder) == expected
    assert address(expected, folder) == expected


@pytest.mark.parametrize("text", ["../a.jpg", "x/../../a.jpg"])
@pytest.mark.parametrize("folder", ["s3://b/", "https://h/"])
def test_a_name_leads_out_of_no_bucket_and_no_server(text: str, folder: str) -> None:
    with pytest.raises(AddressError, match="leads out"):
        address(text, folder)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_any_file_name_comes_back_from_its_address(name: str) -> None:
    path = "/folder/" + name.replace("/", "") + "x"
    source, key = Places(local=True).locate(address(file_address(path), "file:///"))
    assert (source.uri, "/" + key) == ("/", path)
