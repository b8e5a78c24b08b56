"""A hand of cards and what it counts."""

from __future__ import annotations

from collections.abc import Iterable

from blackjack.cards import Card

LIMIT = 21
ACE_REDUCTION = 10


class Hand:
    """The cards of the player or of the dealer, in the order dealt."""

    def __init__(self, cards: Iterable[Card] = ()) -> None:
        self.cards: list[Card] = list(cards)

    def add(self, card: Card) -> None:
        self.cards.append(card)

    def _count(self) -> tuple[int, int]:
        """Total, and how many aces still count eleven in it."""
        total = sum(card.value for card in self.cards)
        high_aces = sum(card.is_ace for card in self.cards)
        if total > LIMIT and high_aces:
            total -= ACE_REDUCTION
            high_aces -= 1
        return total, high_aces

    @property
    def total(self) -> int:
        return self._count()[0]

    @property
    def is_soft(self) -> bool:
        return self._count()[1] > 0

    @property
    def is_bust(self) -> bool:
        return self.total > LIMIT

    @property
    def is_blackjack(self) -> bool:
        return len(self.cards) == 2 and self.total == LIMIT

    def __str__(self) -> str:
        cards = " ".join(str(card) for card in self.cards)
        return f"{cards} ({'soft ' if self.is_soft else ''}{self.total})"
