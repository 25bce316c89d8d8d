"""A parser for commands whose mistakes jsonargparse words well enough."""

from typing import NoReturn

from jsonargparse import ArgumentParser

from granprune.errors import UserError


class OneLineParser(ArgumentParser):
    """Ends a wrong command with one line instead of its usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(message) from ex
