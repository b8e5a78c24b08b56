"""The terminal: whole games with scripted answers and seeded cards (AC-7, AC-8)."""

import pytest

from blackjack import cli
from blackjack.cards import Card
from blackjack.game import Round


class Player:
    """Answers from a script and remembers what was said."""

    def __init__(self, *answers):
        self._answers = list(answers)
        self.heard = []

    def ask(self, prompt):
        self.heard.append(prompt)
        if not self._answers:
            raise EOFError
        return self._answers.pop(0)

    def text(self):
        return "\n".join(self.heard)


class StackedShoe:
    def __init__(self, ranks):
        self._cards = [Card(rank) for rank in ranks.split()]

    def draw(self):
        return self._cards.pop(0)


def play(player, *argv):
    return cli.main(list(argv), ask=player.ask, say=player.heard.append)


def test_quitting_keeps_the_chips():
    player = Player("q")
    assert play(player, "--chips", "50") == 0
    assert player.heard[-1] == "You leave the table with 50 chips."


def test_end_of_input_leaves_the_table():
    player = Player()
    assert play(player) == 0
    assert "You leave the table with 100 chips." in player.text()


def test_bad_bets_are_explained_and_asked_again():
    player = Player("ten", "0", "101", "²", "q")
    play(player)
    assert player.text().count("Please bet a whole number from 1 to 100.") == 4


def test_same_seed_gives_the_same_game():
    script = ["10", "s", "10", "s", "q", "q", "q"]
    first, second = Player(*script), Player(*script)
    play(first, "--seed", "7")
    play(second, "--seed", "7")
    assert first.heard == second.heard
    assert "Dealer has:" in first.text()


def test_losing_everything_ends_the_game():
    player = Player(*["1", "h", "h", "h", "h", "h", "h"] * 40)
    assert play(player, "--chips", "1", "--seed", "3") == 0
    assert player.heard[-1] == "You leave the table with 0 chips."


def test_round_shows_hands_and_result():
    player = Player("s")
    change = cli.play_round(
        StackedShoe("K Q 9 8"), 10, 100, player.ask, player.heard.append
    )
    assert change == 10
    assert "Dealer shows: 9♠" in player.heard
    assert "Dealer has: 9♠ 8♠ (17)" in player.heard
    assert "You win 10 chips." in player.heard


def test_unknown_and_forbidden_moves_are_explained():
    current = Round(StackedShoe("2 3 K 9 4"), 60, 100)
    player = Player("x", "d", "h", "s")
    cli.play_hand(current, player.ask, player.heard.append)
    assert "letters in brackets" in player.text()
    assert "Not allowed: double only" in player.text()
    assert current.player.total == 9


@pytest.mark.parametrize("option", ["--chips", "--decks"])
def test_options_below_one_are_refused(option, capsys):
    with pytest.raises(SystemExit):
        cli.parse_args([option, "0"])
    assert "must be at least 1" in capsys.readouterr().err
