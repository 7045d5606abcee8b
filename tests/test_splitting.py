"""Choosing and splitting by chance: disjoint, complete, repeatable, in the right shares."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistadex.errors import UsageError
from vistadex.records import IntArray
from vistadex.splitting import Labels, choose, rank, ranks, read_shares, split

SHARES = st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.5), (1.0,), (0.7, 0.0, 0.3), (0.34, 0.33, 0.33)])


@st.composite
def collections(draw: st.DrawFn) -> tuple[IntArray, IntArray, list[set[int]], list[str]]:
    """Seeded ranks' names, groups and classes of up to eighty images."""
    number = draw(st.integers(1, 80))
    largest = draw(st.sampled_from([1, 2, 10, 80]))
    groups = draw(st.lists(st.integers(0, number // largest), min_size=number, max_size=number))
    if largest == 1:
        groups = list(range(number))
    classes = draw(
        st.lists(st.sets(st.integers(0, 4), max_size=3), min_size=number, max_size=number)
    )
    names = [f"{at}.jpg" for at in range(number)]
    return np.arange(number), np.array(groups), classes, names


def labels_of(classes: list[set[int]]) -> Labels:
    pairs = [(at, one) for at, some in enumerate(classes) for one in sorted(some)]
    table = np.array(pairs, np.int64).reshape(-1, 2)
    return Labels(table[:, 0], table[:, 1])


@settings(max_examples=300, deadline=None)
@given(collections(), SHARES, st.booleans())
def test_a_split_is_complete_disjoint_by_group_and_in_its_shares(
    made: tuple[IntArray, IntArray, list[set[int]], list[str]],
    shares: tuple[float, ...],
    stratify: bool,
) -> None:
    _, groups, classes, names = made
    labels = labels_of(classes) if stratify else None
    found = split(ranks([("s", one) for one in names], 7), groups, shares, labels)
    assert found.shape == groups.shape
    assert set(found.tolist()) <= {at for at, share in enumerate(shares) if share}
    for group in set(groups.tolist()):
        assert len(set(found[groups == group].tolist())) == 1
    largest = int(np.bincount(groups).max())
    sizes = np.bincount(found, minlength=len(shares))
    off = np.abs(sizes - np.array(shares) * len(groups))
    assert off.max() <= largest + 1e-9


@settings(max_examples=150, deadline=None)
@given(collections(), st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_images_does_not_matter(
    made: tuple[IntArray, IntArray, list[set[int]], list[str]],
    stratify: bool,
    random: Random,
) -> None:
    order, groups, classes, names = made
    shuffled = order.tolist()
    random.shuffle(shuffled)

    def run(places: list[int]) -> dict[str, int]:
        own = ranks([("s", names[at]) for at in places], 3)
        labels = labels_of([classes[at] for at in places]) if stratify else None
        # Other numbers for the groups: they are names, not an order.
        found = split(own, 1000 - groups[places], (0.8, 0.1, 0.1), labels)
        return {names[at]: one for at, one in zip(places, found.tolist(), strict=True)}

    assert run(shuffled) == run(order.tolist())


def test_shares_of_single_images_are_met_exactly() -> None:
    own = ranks([("s", str(at)) for at in range(1000)], 0)
    assert np.bincount(split(own, np.arange(1000), (0.8, 0.1, 0.1))).tolist() == [800, 100, 100]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(3, 12), min_size=1, max_size=8), st.integers(0, 1000))
def test_stratified_every_class_of_three_images_is_in_every_split_with_room(
    numbers: list[int], seed: int
) -> None:
    classes = [{c} for c, number in enumerate(numbers) for _ in range(number)]
    classes += [set()] * (10 * len(numbers))  # room for one of each class in the smallest split
    own = ranks([("s", str(at)) for at in range(len(classes))], seed)
    found = split(own, np.arange(len(classes)), (0.8, 0.1, 0.1), labels_of(classes))
    for c in range(len(numbers)):
        assert {int(found[at]) for at, some in enumerate(classes) if c in some} == {0, 1, 2}


def test_stratified_classes_are_closer_to_their_shares_than_by_chance() -> None:
    random = np.random.default_rng(1)
    classes = [set(random.choice(6, 1 + at % 3, replace=False).tolist()) for at in range(3000)]
    own = ranks([("s", str(at)) for at in range(3000)], 1)
    labels = labels_of(classes)

    def off(found: IntArray) -> float:
        table = np.zeros((6, 3))
        np.add.at(table, (labels.classes, found[labels.images]), 1)
        shares = table / table.sum(axis=1, keepdims=True)
        return float(np.abs(shares - [0.8, 0.1, 0.1]).mean())

    stratified = off(split(own, np.arange(3000), (0.8, 0.1, 0.1), labels))
    assert stratified < off(split(own, np.arange(3000), (0.8, 0.1, 0.1))) / 2
    assert stratified < 0.003


def test_a_class_of_which_few_were_taken_is_in_every_split_as_often_as_another() -> None:
    # Of 2,000 images with the first class 20 are taken, those with the lowest ranks, and all 20
    # with the second.
    members = [np.arange(2000), np.arange(2000, 2020)]
    tested = np.zeros(2)
    for seed in range(60):
        every = ranks([("s", f"{at}.jpg") for at in range(2020)], seed)
        taken = choose(every, members, 20)
        chosen = np.concatenate(taken)
        found = split(every[chosen], np.arange(40), (0.8, 0.2))
        tested += [(found[:20] == 1).sum(), (found[20:] == 1).sum()]
    assert tested.sum() == 60 * 8
    assert abs(tested[0] - tested[1]) < 60  # by one rank for both it was 0 to 480


def test_another_seed_is_another_split_and_another_order() -> None:
    names = [("s", str(at)) for at in range(200)]
    splits = [split(ranks(names, seed), np.arange(200), (0.5, 0.5)) for seed in (1, 2)]
    assert 60 < int((splits[0] != splits[1]).sum()) < 140
    assert rank("s", "a", 1) != rank("s", "a", 2) != rank("t", "a", 2)


def test_the_rank_of_an_image_never_changes() -> None:
    # A data set that is made again in years has to be the same.
    assert rank("s3://photos", "a/ü.jpg", 7) == RANK


RANK = 14075616488515212248


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.randoms(use_true_random=False))
def test_choosing_takes_the_lowest_ranks_of_each_class(
    number: int, per_class: int, random: Random
) -> None:
    own = ranks([("s", str(at)) for at in range(number)], 5)
    members = [random.sample(range(number), random.randint(0, number)) for _ in range(3)]
    found = choose(own, [np.array(some, np.int64) for some in members], per_class)
    for some, chosen in zip(members, found, strict=True):
        assert chosen.tolist() == sorted(some, key=lambda at: own[at])[:per_class]


@pytest.mark.parametrize("text", ["80/10", "80/10/20", "a/b", "", "50/30/10/10", "120/-20", "nan"])
def test_shares_that_make_no_hundred_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"split .*expected"):
        read_shares(text)


def test_shares_are_read_as_fractions() -> None:
    assert read_shares("80/10/10") == (0.8, 0.1, 0.1)
    assert read_shares("100") == (1.0,)
    assert read_shares("33.4/33.3/33.3") == pytest.approx((0.334, 0.333, 0.333))


def test_no_images_are_split_into_none() -> None:
    nothing = np.zeros(0, np.int64)
    assert split(nothing.astype(np.uint64), nothing, (0.8, 0.2)).tolist() == []


def test_a_large_group_takes_a_split_above_its_share_and_no_other_is_split() -> None:
    groups = np.array([0] * 50 + list(range(1, 51)))
    own = ranks([("s", str(at)) for at in range(100)], 2)
    for labels in (None, labels_of([{0}] * 100)):
        found = split(own, groups, (0.8, 0.1, 0.1), labels)
        assert len(set(found[:50].tolist())) == 1


def test_many_images_with_many_classes_are_stratified_in_exact_shares() -> None:
    number = 20_000
    random = np.random.default_rng(0)
    own = random.integers(0, 2**64, number, dtype=np.uint64)
    images = np.concatenate([np.arange(number), random.integers(0, number, number)])
    classes = np.minimum(random.zipf(1.5, 2 * number) - 1, 599)
    found = split(own, np.arange(number), (0.8, 0.1, 0.1), Labels(images, classes))
    assert np.bincount(found).tolist() == [16_000, 2_000, 2_000]
