"""What the commands' parsers have in common."""

from collections.abc import Collection, Sequence
from typing import NoReturn

from jsonargparse import ArgumentParser

from granprune.errors import UserError


class OneLineParser(ArgumentParser):
    """Ends a wrong command with one line instead of its usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(message) from ex


def with_values(words: Sequence[str], flags: Collection[str]) -> list[str]:
    """Let options that are true or false stand alone, too.

    >>> with_values(["--fresh", "--n", "1", "--quiet", "false", "--fresh"], {"--fresh", "--quiet"})
    ['--fresh=true', '--n', '1', '--quiet', 'false', '--fresh=true']
    """
    alone = [not after or after.startswith("-") for after in [*words[1:], ""]]
    return [
        f"{word}=true" if word in flags and lone else word for word, lone in zip(words, alone, strict=True)
    ]
