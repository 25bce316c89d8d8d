"""What a wrong command line is told: one line with the option, its value and what would be right."""

import difflib
import inspect
import re
from collections.abc import Iterable
from typing import Any

import torch

from granprune.criteria import Criterion
from granprune.data import ImageDataModule
from granprune.granularity import Granularity
from granprune.learning_rate import LearningRate
from granprune.models import Prunable
from granprune.schedule import Schedule
from granprune.scope import Scope

BASES: dict[str, type] = {
    "network": Prunable,
    "granularity": Granularity,
    "optimizer": torch.optim.Optimizer,
    "learning_rate": LearningRate,
    "data": ImageDataModule,
    "schedule": Schedule,
    "criterion": Criterion,
    "scope": Scope,
}  # the last part of an option that names a class -> what it has to be
WORDS = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "text", "list": "a list"}


def explain(message: str, options: Iterable[str]) -> str:
    """Say in one line what jsonargparse says in many.

    Args:
        message: An error of jsonargparse: nested, an option's class inside its option.
        options: All options there are, for a suggestion.

    >>> explain('Parser key "pruning.density": Not of type D: 2 does not conform to restriction v>0', [])
    'pruning.density is 2: expected a number >0'
    """
    return (
        _restricted(message)
        or _missing(message)
        or _unknown_option(message, options)
        or _unknown_class(message)
        or _unexpected(message)
        or _file(message)
        or message
    )


def known_classes(base: type[Any]) -> list[str]:
    """Names of the classes that can be given where a `base` is asked for."""
    names = {kind.__name__ for kind in _descendants(base) if not inspect.isabstract(kind)}
    return sorted(name for name in names if not name.startswith(("_", "LazyInstance_", "Optimizer")))


def _descendants(base: type[Any]) -> set[type[Any]]:
    return {base}.union(*(_descendants(kind) for kind in base.__subclasses__()))


def _option(message: str) -> str:
    """The whole name of the option, from the keys of all levels."""
    keys = re.findall(r'Parser key "([^"]+)"', message)
    return ".".join(key for i, key in enumerate(keys) if key not in keys[:i])


def _class(message: str) -> str | None:
    paths = re.findall(r"class_path[ =]'([\w.]+)'", message)
    return paths[-1].rsplit(".", 1)[-1] if paths else None


def _restricted(message: str) -> str | None:
    kind = re.search(r"Not of type (\w+): ", message)
    if not kind:
        return None
    number = "an integer" if kind[1].endswith(("Int", "Seed")) else "a number"
    if found := re.search(r": (\S+) does not conform to restriction (.+)", message):
        return f"{_option(message)} is {found[1]}: expected {number} {found[2].replace('v', '')}"
    value = re.search(r": '(.*)'|object: (.*)", message[kind.end() - 2 :])
    return f"{_option(message)} is {value[1] if value else 'something else'}: expected {number}"


def _missing(message: str) -> str | None:
    found = re.search(r"the following arguments are required: (.+)", message)
    if not found:
        return None
    if option := _option(message):
        return f"{option}.{found[1]} is missing: {_class(message)} needs it"
    names = re.sub(r"\b(fit|test|validate)\.", "", found[1])
    return f"{names} must be given, as options or by a configuration file (--config FILE)"


def _unknown_option(message: str, options: Iterable[str]) -> str | None:
    patterns = r"does not accept option '([^']+)'", r"unrecognized arguments: -*([^\s=]+)"
    for pattern in patterns:
        if found := re.search(pattern, message):
            close = difflib.get_close_matches(found[1], list(options), 1)
            hint = f"did you mean {close[0]}?" if close else "--help lists all"
            return f"there is no option {found[1]}; {hint}"
    if found := re.search(r"Option '(\w+)' is not accepted", message):
        option = _option(message)
        return f"there is no option {option}.{found[1]}; --{option}.help {_class(message)} lists all"
    return None


def _unknown_class(message: str) -> str | None:
    option = _option(message)
    base = BASES.get(option.rsplit(".", 1)[-1])
    if found := re.search(r"Expected a dot import path string: (\S+)", message):
        if base is None:
            return None
        known = ", ".join(known_classes(base))
        return f"{option}: there is no class {found[1]}; known are {known}, or give its import path"
    found = re.search(r"given class_path '([^']+)':\s+(\w[^\n]*)", message)
    return f"{option}: cannot take class {found[1]}: {found[2]}" if found and base else None


def _unexpected(message: str) -> str | None:
    choices = re.findall(r"Literal\[(.*?)\]", message.split("Errors:")[-1])
    types = re.findall(r"Expected an? <class '(\w+)'>", message)
    value = re.search(r"(?:Given value|Got value): ([^\n]*?)(?:\. Got value.*)?$", message, re.MULTILINE)
    expected = dict.fromkeys(word.strip("' ") for words in choices for word in words.split(","))
    expected.update(dict.fromkeys(WORDS[name] for name in types if name in WORDS))
    if not expected or not value:
        return None
    listed = " or ".join(expected) if len(expected) < 4 else f"one of {', '.join(expected)}"
    return f"{_option(message)} is {value[1]}: expected {listed}"


def _file(message: str) -> str | None:
    if found := re.search(r"File does not exist: '(.+)'", message):
        return f"there is no file {found[1]}"
    if "Unexpected config:" in message:
        return "expected options and their values, such as pruning: {density: 0.5}"
    if found := re.search(r"Problems parsing config: (.+)", message, re.DOTALL):
        return "not valid YAML: " + found[1].replace('in "<unicode string>", ', "at ")
    if found := re.search(r"""Unable to load config ['"](.*?)['"]""", message):
        option = _option(message)
        return f"{option} is {found[1]}: expected a configuration file; options go as --{option}.NAME VALUE"
    return None
