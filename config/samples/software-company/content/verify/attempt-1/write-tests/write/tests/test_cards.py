"""Cards and shoe: values, contents and reproducible shuffling."""

import random
from collections import Counter

import pytest

from blackjack.cards import RANKS, SUITS, Card, Shoe


@pytest.mark.parametrize(
    ("rank", "value"),
    [("2", 2), ("9", 9), ("10", 10), ("J", 10), ("Q", 10), ("K", 10), ("A", 11)],
)
def test_card_has_its_value(rank, value):
    assert Card(rank).value == value


@pytest.mark.parametrize(("rank", "suit"), [("1", "♠"), ("JQ", "♠"), ("A", "x")])
def test_unknown_card_is_refused(rank, suit):
    with pytest.raises(ValueError, match="no such card"):
        Card(rank, suit)


def test_card_shows_rank_and_suit():
    assert str(Card("10", "♥")) == "10♥"


def test_shoe_holds_every_card_once_a_deck():
    shoe = Shoe(random.Random(1), decks=2)
    drawn = Counter(shoe.draw() for _ in range(len(shoe)))
    assert set(drawn.values()) == {2}
    assert len(drawn) == len(RANKS) * len(SUITS)


def test_same_seed_deals_same_cards():
    first, second = (Shoe(random.Random(7), decks=1) for _ in range(2))
    assert [first.draw() for _ in range(52)] == [second.draw() for _ in range(52)]


def test_shoe_is_shuffled_when_a_quarter_is_left():
    shoe = Shoe(random.Random(1), decks=1)
    for _ in range(38):
        shoe.draw()
    assert not shoe.shuffle_if_needed()
    shoe.draw()
    assert shoe.shuffle_if_needed()
    assert len(shoe) == 52


def test_empty_shoe_refills_in_the_middle_of_a_round():
    shoe = Shoe(random.Random(1), decks=1)
    for _ in range(53):
        shoe.draw()
    assert len(shoe) == 51


def test_shoe_without_decks_is_refused():
    with pytest.raises(ValueError, match="at least one deck"):
        Shoe(random.Random(1), decks=0)
