"""Blackjack for the terminal: one player against the house."""

__version__ = "1.0.0"
