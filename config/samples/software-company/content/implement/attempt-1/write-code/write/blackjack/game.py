"""The rules of one round: dealing, playing, settling. No input, no output."""

from __future__ import annotations

from enum import Enum

from blackjack.cards import Shoe
from blackjack.hand import LIMIT, Hand

DEALER_STANDS = 17


class RuleError(ValueError):
    """A move or a bet that the rules do not allow."""


class Outcome(Enum):
    BLACKJACK = "blackjack"
    WIN = "win"
    PUSH = "push"
    LOSE = "lose"


def payout(outcome: Outcome, bet: int) -> int:
    """Chips won (positive) or lost; 3:2 for a blackjack, rounded down."""
    if outcome is Outcome.BLACKJACK:
        return bet * 3 // 2
    if outcome is Outcome.WIN:
        return bet
    return 0 if outcome is Outcome.PUSH else -bet


def judge(player: Hand, dealer: Hand) -> Outcome:
    """Who has won, once nobody draws any more."""
    if player.is_bust:
        return Outcome.LOSE
    if player.is_blackjack or dealer.is_blackjack:
        if player.is_blackjack and dealer.is_blackjack:
            return Outcome.PUSH
        return Outcome.BLACKJACK if player.is_blackjack else Outcome.LOSE
    if dealer.is_bust or player.total > dealer.total:
        return Outcome.WIN
    return Outcome.PUSH if player.total == dealer.total else Outcome.LOSE


class Round:
    """One bet, from the deal to the settlement."""

    def __init__(self, shoe: Shoe, bet: int, chips: int) -> None:
        if not 1 <= bet <= chips:
            raise RuleError(f"bet between 1 and {chips} chips")
        self._shoe = shoe
        self._chips = chips
        self.bet = bet
        self.player = Hand([shoe.draw(), shoe.draw()])
        self.dealer = Hand([shoe.draw(), shoe.draw()])
        self.over = self.player.is_blackjack or self.dealer.is_blackjack

    @property
    def can_double(self) -> bool:
        enough = self.bet * 2 <= self._chips
        return not self.over and len(self.player.cards) == 2 and enough

    def hit(self) -> None:
        self._require_open()
        self.player.add(self._shoe.draw())
        self.over = self.player.total >= LIMIT

    def double(self) -> None:
        self._require_open()
        if not self.can_double:
            raise RuleError("double only on two cards, with chips to match")
        self.bet *= 2
        self.player.add(self._shoe.draw())
        self.over = True

    def stand(self) -> None:
        self._require_open()
        self.over = True

    def settle(self) -> tuple[Outcome, int]:
        """Let the dealer play if it matters; the outcome and its chips."""
        if not self.over:
            raise RuleError("the player has not finished")
        if not (self.player.is_bust or self.player.is_blackjack):
            while self.dealer.total < DEALER_STANDS:
                self.dealer.add(self._shoe.draw())
        outcome = judge(self.player, self.dealer)
        return outcome, payout(outcome, self.bet)

    def _require_open(self) -> None:
        if self.over:
            raise RuleError("the round is over")
