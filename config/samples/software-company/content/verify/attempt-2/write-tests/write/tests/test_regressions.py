"""One test for each defect that was found and repaired."""

import pytest

from blackjack.cards import Card
from blackjack.game import Outcome, judge
from blackjack.hand import Hand


def hand(*ranks):
    return Hand(Card(rank) for rank in ranks)


@pytest.mark.parametrize(
    ("ranks", "total", "soft"),
    [
        (("A", "A", "K"), 12, False),
        (("A", "A", "A"), 13, True),
        (("A", "A", "A", "K"), 13, False),
        (("A", "A", "9", "A"), 12, False),
    ],
)
def test_bug_1_each_ace_is_reduced_on_its_own(ranks, total, soft):
    cards = hand(*ranks)
    assert (cards.total, cards.is_soft) == (total, soft)


def test_bug_1_many_aces_can_still_win():
    assert judge(hand("A", "A", "K", "9"), hand("K", "Q")) is Outcome.WIN
