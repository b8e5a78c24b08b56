"""Rounds against a stacked shoe: dealer rules, doubling, payouts (AC-3 to AC-6)."""

import pytest

from blackjack.cards import Card
from blackjack.game import Outcome, Round, RuleError, payout


class StackedShoe:
    """Deals the named ranks in order: player, player, dealer, dealer, then draws."""

    def __init__(self, ranks):
        self._cards = [Card(rank) for rank in ranks.split()]

    def draw(self):
        return self._cards.pop(0)


def deal(ranks, bet=10, chips=100):
    return Round(StackedShoe(ranks), bet, chips)


@pytest.mark.parametrize(
    ("outcome", "bet", "chips"),
    [
        (Outcome.BLACKJACK, 10, 15),
        (Outcome.BLACKJACK, 5, 7),
        (Outcome.WIN, 10, 10),
        (Outcome.PUSH, 10, 0),
        (Outcome.LOSE, 10, -10),
    ],
)
def test_payouts(outcome, bet, chips):
    assert payout(outcome, bet) == chips


@pytest.mark.parametrize(
    ("ranks", "outcome", "chips"),
    [
        ("K Q 9 8", Outcome.WIN, 10),
        ("K 8 9 9", Outcome.PUSH, 0),
        ("K 8 K 9", Outcome.LOSE, -10),
        ("K 8 K 6 K", Outcome.WIN, 10),
        ("K 8 K 6 5", Outcome.LOSE, -10),
    ],
)
def test_standing_player_against_the_dealer(ranks, outcome, chips):
    table = deal(ranks)
    table.stand()
    assert table.settle() == (outcome, chips)


@pytest.mark.parametrize(
    ("ranks", "outcome", "chips"),
    [
        ("A K 9 8", Outcome.BLACKJACK, 15),
        ("A K A Q", Outcome.PUSH, 0),
        ("K 9 A Q", Outcome.LOSE, -10),
    ],
)
def test_blackjack_ends_the_round_at_once(ranks, outcome, chips):
    table = deal(ranks)
    assert table.over
    assert table.settle() == (outcome, chips)


def test_dealer_stands_on_soft_seventeen():
    table = deal("K 8 A 6")
    table.stand()
    assert table.settle() == (Outcome.WIN, 10)
    assert len(table.dealer.cards) == 2


def test_dealer_does_not_draw_against_a_bust():
    table = deal("K 6 2 3 K")
    table.hit()
    assert table.settle() == (Outcome.LOSE, -10)
    assert len(table.dealer.cards) == 2


def test_hit_goes_on_below_twenty_one_and_ends_at_it():
    table = deal("2 3 K 9 6 10")
    table.hit()
    assert not table.over
    table.hit()
    assert table.over
    assert table.settle() == (Outcome.WIN, 10)


def test_double_takes_one_card_and_twice_the_bet():
    table = deal("5 6 K 9 K")
    assert table.can_double
    table.double()
    assert table.over
    assert table.settle() == (Outcome.WIN, 20)


@pytest.mark.parametrize(("bet", "chips", "hits"), [(60, 100, 0), (10, 100, 1)])
def test_double_is_refused_without_chips_or_after_a_hit(bet, chips, hits):
    table = deal("2 3 K 9 2", bet, chips)
    for _ in range(hits):
        table.hit()
    with pytest.raises(RuleError, match="double only"):
        table.double()


@pytest.mark.parametrize("bet", [0, -5, 101])
def test_bet_outside_the_chips_is_refused(bet):
    with pytest.raises(RuleError, match="between 1 and 100"):
        deal("2 3 4 5", bet)


def test_no_move_after_the_end_and_no_settlement_before():
    table = deal("K 8 K 9")
    with pytest.raises(RuleError, match="not finished"):
        table.settle()
    table.stand()
    with pytest.raises(RuleError, match="over"):
        table.hit()
