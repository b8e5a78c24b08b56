"""Hands: totals, soft aces, blackjack and bust (AC-1, AC-2)."""

import pytest

from blackjack.cards import Card
from blackjack.hand import Hand


def hand(*ranks):
    return Hand(Card(rank) for rank in ranks)


@pytest.mark.parametrize(
    ("ranks", "total"),
    [
        (("2", "3"), 5),
        (("K", "Q"), 20),
        (("A", "6"), 17),
        (("A", "6", "K"), 17),
        (("A", "A"), 12),
        (("A", "A", "9"), 21),
        (("K", "Q", "5"), 25),
    ],
)
def test_hand_counts(ranks, total):
    assert hand(*ranks).total == total


def test_every_ace_may_count_one():
    total = hand("A", "A", "K").total
    assert total == 12


@pytest.mark.parametrize(
    ("ranks", "soft"),
    [(("A", "6"), True), (("A", "6", "K"), False), (("9", "7"), False)],
)
def test_soft_means_an_ace_counts_eleven(ranks, soft):
    assert hand(*ranks).is_soft is soft


def test_blackjack_takes_two_cards():
    assert hand("A", "K").is_blackjack
    assert not hand("7", "7", "7").is_blackjack


def test_bust_is_over_twenty_one():
    assert hand("K", "Q", "2").is_bust
    assert not hand("K", "Q", "A").is_bust


def test_hand_shows_cards_and_total():
    cards = hand("A", "6")
    assert str(cards) == "A♠ 6♠ (soft 17)"
    cards.add(Card("K"))
    assert str(cards) == "A♠ 6♠ K♠ (17)"
