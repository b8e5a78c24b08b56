"""Entry point of ``python -m blackjack``."""

from blackjack.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
