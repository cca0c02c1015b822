"""Every command can say what it takes."""

import pytest
import typer
from typer.testing import CliRunner

from geodino.cli.main import app


def all_commands():
    """Yield the words of each command, and its options and arguments."""
    top = typer.main.get_command(app)
    for name, command in top.commands.items():
        inner = getattr(command, "commands", None)
        if inner is None:
            yield (name,), command
        else:
            yield from (((name, word), one) for word, one in inner.items())


@pytest.mark.parametrize(
    ("words", "command"), [pytest.param(*c, id=" ".join(c[0])) for c in all_commands()]
)
def test_help_names_every_option_and_keeps_every_word(words, command):
    done = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert done.exit_code == 0, done.exception
    shown = " ".join(done.stdout.replace("│", " ").split())
    for option in command.params:
        is_argument = not option.opts[0].startswith("-")
        assert (option.metavar or option.name if is_argument else option.opts[0]) in shown
        for word in (option.help or "").split():
            assert word.strip("`") in shown
