"""Cards and the shoe they are dealt from."""

from __future__ import annotations

import random
from dataclasses import dataclass

RANKS = ("2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K", "A")
SUITS = ("♠", "♥", "♦", "♣")
ACE_HIGH = 11
FACE_VALUE = 10


@dataclass(frozen=True)
class Card:
    """One playing card; an ace counts eleven until a hand says otherwise."""

    rank: str
    suit: str = "♠"

    def __post_init__(self) -> None:
        if self.rank not in RANKS or self.suit not in SUITS:
            raise ValueError(f"no such card: {self.rank}{self.suit}")

    @property
    def is_ace(self) -> bool:
        return self.rank == "A"

    @property
    def value(self) -> int:
        if self.is_ace:
            return ACE_HIGH
        return FACE_VALUE if self.rank in "JQK" else int(self.rank)

    def __str__(self) -> str:
        return f"{self.rank}{self.suit}"


class Shoe:
    """Several decks shuffled together; refilled when only a quarter is left."""

    def __init__(self, rng: random.Random, decks: int = 6) -> None:
        if decks < 1:
            raise ValueError("a shoe needs at least one deck")
        self._rng = rng
        self._decks = decks
        self._cards: list[Card] = []
        self._refill()

    def __len__(self) -> int:
        return len(self._cards)

    @property
    def needs_shuffle(self) -> bool:
        return len(self) * 4 <= self._decks * len(RANKS) * len(SUITS)

    def shuffle_if_needed(self) -> bool:
        """Refill between rounds; true when the shoe was shuffled."""
        if self.needs_shuffle:
            self._refill()
            return True
        return False

    def draw(self) -> Card:
        if not self._cards:
            self._refill()
        return self._cards.pop()

    def _refill(self) -> None:
        deck = [Card(rank, suit) for suit in SUITS for rank in RANKS]
        self._cards = deck * self._decks
        self._rng.shuffle(self._cards)
