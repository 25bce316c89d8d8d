"""What the commands of this package have in common in reading their words."""

from collections.abc import Callable
from typing import TypeVar

from granprune.errors import UserError

T = TypeVar("T")


def listed(text: str, option: str, read: Callable[[str], T], wanted: str) -> list[T]:
    """The values of an option that takes several, separated by commas.

    Args:
        text: What was given.
        option: Its name, for the message.
        read: Turns one word into a value, or raises ValueError or KeyError.
        wanted: What a word may be, for the message.

    Raises:
        UserError: A word is none of these.

    >>> listed("1,128", "--batch", int, "integers")
    [1, 128]
    """
    values = []
    for word in filter(None, text.split(",")):
        try:
            values.append(read(word.strip()))
        except (ValueError, KeyError):
            raise UserError(f"{option} {word.strip()}: give {wanted}, separated by commas") from None
    return values


def count_of(word: str) -> int:
    """An integer of at least 1."""
    if int(word) < 1:
        raise ValueError(word)
    return int(word)


def density_of(word: str) -> float:
    """A number over 0 and up to 1."""
    if not 0 < float(word) <= 1:
        raise ValueError(word)
    return float(word)
