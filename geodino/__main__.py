"""``python -m geodino`` is ``geodino``."""

from geodino.cli.main import main

if __name__ == "__main__":
    main()
