import pytest

from granprune.errors import UserError
from granprune.parser import OneLineParser


def parser() -> OneLineParser:
    parser = OneLineParser(prog="granprune try")
    parser.add_argument("--count", type=int, default=3)
    return parser


def test_words_are_read() -> None:
    assert parser().parse_args(["--count", "2"]).count == 2


@pytest.mark.parametrize(("words", "said"), [(["--cuont", "2"], "cuont"), (["--count", "two"], "two")])
def test_wrong_words_raise_what_ends_in_one_line_and_print_nothing(words, said, capsys) -> None:
    with pytest.raises(UserError, match=said):
        parser().parse_args(words)
    assert capsys.readouterr() == ("", "")
