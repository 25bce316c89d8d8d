import pytest

from granprune.deploy.options import count_of, density_of, listed
from granprune.errors import UserError


def test_values_are_separated_by_commas():
    assert listed("1, 128", "--batch", count_of, "integers") == [1, 128]
    assert listed("", "--export", {"a": 1}.__getitem__, "a") == []


@pytest.mark.parametrize(
    ("text", "read"), [("0", count_of), ("x", count_of), ("0", density_of), ("1.5", density_of)]
)
def test_wrong_values_are_named(text, read):
    with pytest.raises(UserError, match=f"--option {text}: give numbers, separated by commas"):
        listed(f"1,{text}", "--option", read, "numbers")
