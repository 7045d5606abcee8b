"""vistadex.grammar: the query language."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vistadex.errors import QueryError
from vistadex.grammar import Query, RelationPattern, Term, exact, like, parse, relation_pattern


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Query()),
        ("  ", Query()),
        ("dog", Query(terms=(Term("dog"),))),
        ("traffic light", Query(terms=(Term("traffic light"),))),
        ('"traffic light"', Query(terms=(Term("traffic light"),))),
        ("T-shirt", Query(terms=(Term("T-shirt"),))),
        ("dog & frisbee", Query(terms=(Term("dog"), Term("frisbee")))),
        ("dog&frisbee", Query(terms=(Term("dog"), Term("frisbee")))),
        ("dog | hot dog", Query(terms=(Term("dog"), Term("hot dog")), mode="any")),
        ("dog & dog", Query(terms=(Term("dog"),))),
        ("dog -person", Query(terms=(Term("dog"),), without=(Term("person"),))),
        ("dog & -person", Query(terms=(Term("dog"),), without=(Term("person"),))),
        ('-"stop sign" -car', Query(without=(Term("stop sign"), Term("car")))),
        ("car>=3", Query(terms=(Term("car", 3),))),
        ("car > 3", Query(terms=(Term("car", 4),))),
        ("traffic light>=2 & car", Query(terms=(Term("traffic light", 2), Term("car")))),
        ("dog score>=0.5", Query(terms=(Term("dog"),), min_score=500_000)),
        ("score>.5 dog", Query(terms=(Term("dog"),), min_score=500_001)),
        ("dog source:photos", Query(terms=(Term("dog"),), source="photos")),
        ('dog source:"/my photos"', Query(terms=(Term("dog"),), source="/my photos")),
        ("dog & model:yolox-nano", Query(terms=(Term("dog"),), model="yolox-nano")),
        ("dog split:train", Query(terms=(Term("dog"),), attributes=(("split", "train"),))),
        (
            'camera-2.id:7 place:"New York"',
            Query(attributes=(("camera-2.id", "7"), ("place", "New York"))),
        ),
        ('"ratio 4:3"', Query(terms=(Term("ratio 4:3"),))),
        ('"score"', Query(terms=(Term("score"),))),
        ("duplicate:near dog", Query(terms=(Term("dog"),), duplicates="near")),
        (
            'dog & relation:"Person/is on%/Dining table" -relation://Horse',
            Query(
                terms=(
                    Term("dog"),
                    Term(relation=RelationPattern("Person", "is on%", "Dining table")),
                ),
                without=(Term(relation=RelationPattern("", "", "Horse")),),
            ),
        ),
        (
            r"relation:a\/b/c/d",
            Query(terms=(Term(relation=RelationPattern(r"a\/b", "c", "d")),)),
        ),
        (
            'dog collection:"my best" -collection:old COLLECTION:new cat',
            Query(
                terms=(Term("dog"), Term("cat")),
                collections=("my best", "new"),
                not_in=("old",),
            ),
        ),
        ("collection:a collection:a", Query(collections=("a",))),
        ("hund & größe", Query(terms=(Term("hund"), Term("größe")))),
    ],
)
def test_a_query_says(text: str, expected: Query) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("& dog", "missing before '&'"),
        ("dog &", "missing after '&'"),
        ("dog & | cat", "missing between"),
        ("dog & cat | bird", "can't be mixed"),
        ("score>x", "number from 0 to 1"),
        ("score>2", "from 0 to 1"),
        ("score>nan", "from 0 to 1"),
        ("car>=0", "whole number from 1"),
        ("car>=many", "whole number from 1"),
        ("car>=²", "whole number from 1"),
        ("car>=" + "9" * 5000, "whole number from 1"),
        (">=3", "must follow a class"),
        ("-car>=3", "must follow a class"),
        ("-", "missing after '-'"),
        ("- & dog", "missing before '&'"),
        ('dog "cat', "quote not closed"),
        ('""', "empty"),
        ("source:", "needs a name"),
        ("dog split:", "split: needs a name"),
        ("dog collection:", "collection: needs a name"),
        ('-collection:" "', "collection: needs a name"),
        (" ".join(f"collection:c{i}" for i in range(31)), "more than 30 collections"),
        (" & ".join(f"c{i}" for i in range(31)), "more than 30 classes"),
    ],
)
def test_a_query_that_makes_no_sense_says_where(text: str, problem: str) -> None:
    with pytest.raises(QueryError, match=r"query .*" + problem.replace("(", r"\(")):
        parse(text)


@given(st.text())
def test_any_text_is_a_query_or_a_query_error(text: str) -> None:
    with suppress(QueryError):
        parse(text)


@given(
    st.lists(
        st.text(st.characters(exclude_characters='"', exclude_categories=["C", "Z"]), min_size=1),
        min_size=1,
        max_size=4,
        unique=True,
    )
)
def test_every_class_name_can_be_asked_for_in_quotes(names: list[str]) -> None:
    query = parse(" & ".join(f'"{name}"' for name in names))
    assert [term.class_name for term in query.terms] == names


@pytest.mark.parametrize(
    ("part", "name", "matches", "others"),
    [
        (r"a\%", "a%", ["a%"], ["ab", "a\\%"]),
        (r"a\\%", None, ["a\\", "a\\b"], ["a%"]),
        (r"a\_b", "a_b", ["a_b"], ["axb"]),
        (r"a\/b", "a/b", ["a/b"], ["a\\/b"]),
        (r"a\\", "a\\", ["a\\"], ["a"]),
        ("a%", None, ["a", "ab\n"], ["ba"]),
        ("a", "a", ["a"], ["A"]),
        ("", None, ["", "a"], []),
    ],
)
def test_a_backslash_takes_the_meaning_of_the_next_character_alone(
    part: str, name: str | None, matches: list[str], others: list[str]
) -> None:
    assert exact(part) == name
    assert relation_pattern(f"{part}/x/") == (part, "x", "")
    assert all(like(part).fullmatch(one) for one in matches)
    assert not any(like(part).fullmatch(one) for one in others)
