"""The terminal: asks, shows, and leaves the rules to ``game``."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence

from blackjack.cards import Shoe
from blackjack.game import Outcome, Round, RuleError

Ask = Callable[[str], str]
Say = Callable[[str], None]

VERDICTS = {
    Outcome.BLACKJACK: "Blackjack! You win {chips} chips.",
    Outcome.WIN: "You win {chips} chips.",
    Outcome.PUSH: "Push, your bet comes back.",
    Outcome.LOSE: "The house wins; you lose {chips} chips.",
}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="blackjack", description=__doc__)
    parser.add_argument("--chips", type=int, default=100, help="chips to start with")
    parser.add_argument("--decks", type=int, default=6, help="decks in the shoe")
    parser.add_argument("--seed", type=int, help="repeat the same cards")
    args = parser.parse_args(argv)
    if args.chips < 1 or args.decks < 1:
        parser.error("--chips and --decks must be at least 1")
    return args


def ask_bet(ask: Ask, say: Say, chips: int) -> int | None:
    """The bet, or None when the player leaves the table."""
    while True:
        answer = ask(f"Bet (1-{chips}, q to quit): ").strip().lower()
        if answer in ("q", "quit"):
            return None
        if answer.isascii() and answer.isdigit() and 1 <= int(answer) <= chips:
            return int(answer)
        say(f"Please bet a whole number from 1 to {chips}.")


def play_hand(current: Round, ask: Ask, say: Say) -> None:
    """Let the player hit, stand or double until the hand is finished."""
    moves = {"h": current.hit, "s": current.stand, "d": current.double}
    while not current.over:
        say(f"Your hand: {current.player}")
        choices = "[h]it, [s]tand" + (", [d]ouble" if current.can_double else "")
        move = moves.get(ask(f"{choices}: ").strip().lower()[:1])
        if move is None:
            say("Please answer with one of the letters in brackets.")
            continue
        try:
            move()
        except RuleError as error:
            say(f"Not allowed: {error}.")


def play_round(shoe: Shoe, bet: int, chips: int, ask: Ask, say: Say) -> int:
    """Play one round and give the change in chips."""
    current = Round(shoe, bet, chips)
    say(f"Dealer shows: {current.dealer.cards[0]}")
    play_hand(current, ask, say)
    outcome, change = current.settle()
    say(f"Your hand: {current.player}")
    say(f"Dealer has: {current.dealer}")
    say(VERDICTS[outcome].format(chips=abs(change)))
    return change


def main(argv: Sequence[str] | None = None, ask: Ask = input, say: Say = print) -> int:
    args = parse_args(argv)
    shoe = Shoe(random.Random(args.seed), args.decks)
    chips = args.chips
    say(f"Welcome to blackjack. You have {chips} chips.")
    try:
        while chips > 0:
            if shoe.shuffle_if_needed():
                say("The shoe is shuffled.")
            bet = ask_bet(ask, say, chips)
            if bet is None:
                break
            chips += play_round(shoe, bet, chips, ask, say)
            say(f"Chips: {chips}")
    except (EOFError, KeyboardInterrupt):
        say("")
    say(f"You leave the table with {chips} chips.")
    return 0
