"""Reading what the agent says in JSON.

The guest is hostile: every value is typed and bounded, all else is GuestProtocol.
"""

import json
import re
from typing import Any, NoReturn

from pyro_mcp.errors import GuestProtocol
from pyro_mcp.guest.faults import ERROR_CODES, AgentRefused

INTEGER_MOST = (1 << 63) - 1
DIGITS_MOST = 20
MESSAGE_MOST = 500
QUOTED_MOST = 40


def printable(text: str, most: int) -> str:
    """*text* on one line, cut to *most* characters; what cannot be printed becomes blanks."""
    cut = text[:most]
    clean = "".join(letter if letter.isprintable() else " " for letter in cut).strip()
    return f"{clean}..." if len(text) > most else clean


class Answer:
    """A JSON object of the guest, read field by field.

    Keys nobody asks for are ignored (fields are only ever added).
    """

    def __init__(self, values: dict[str, Any], what: str) -> None:
        self._values = values
        self._what = what

    def integer(self, name: str, low: int = 0, high: int = INTEGER_MOST) -> int:
        """A whole number from *low* to *high*."""
        value = self._get(name)
        if type(value) is not int or not low <= value <= high:
            self._wrong(name)
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._get(name)
        if type(value) is not bool:
            self._wrong(name)
        return value

    def text(self, name: str, most: int) -> str:
        """A string of at most *most* characters, made printable."""
        value = self._get(name)
        if type(value) is not str or len(value) > most:
            self._wrong(name)
        return printable(value, most)

    def matching(self, name: str, pattern: re.Pattern[str]) -> str:
        """A string that *pattern* matches as a whole."""
        value = self._get(name)
        if type(value) is not str or not pattern.fullmatch(value):
            self._wrong(name)
        return value

    def object(self, name: str) -> "Answer":
        """An object."""
        value = self._get(name)
        if type(value) is not dict:
            self._wrong(name)
        return Answer(value, f"{self._what}.{name}")

    def optional(self, name: str) -> "Answer | None":
        """An object or null."""
        return None if self._get(name) is None else self.object(name)

    def objects(self, name: str, most: int) -> list["Answer"]:
        """A list of at most *most* objects."""
        value = self._list(name, most)
        if any(type(item) is not dict for item in value):
            self._wrong(name)
        return [Answer(item, f"{self._what}.{name}[]") for item in value]

    def texts(self, name: str, most: int, length: int) -> tuple[str, ...]:
        """A list of at most *most* strings of at most *length* characters, made printable."""
        value = self._list(name, most)
        if any(type(item) is not str or len(item) > length for item in value):
            self._wrong(name)
        return tuple(printable(item, length) for item in value)

    def optional_texts(self, name: str, most: int, length: int) -> tuple[str | None, ...]:
        """A list of at most *most* strings of at most *length* characters, or nulls."""
        value = self._list(name, most)
        if any(item is not None and (type(item) is not str or len(item) > length) for item in value):
            self._wrong(name)
        return tuple(value)

    def integers(self, most: int, length: int) -> dict[str, int]:
        """All of a small object: at most *most* whole numbers under names of at most *length* characters."""
        if len(self._values) > most or any(len(name) > length for name in self._values):
            raise GuestProtocol(f"the guest sent too much in {self._what}")
        return {printable(name, length): self.integer(name) for name in self._values}

    def _list(self, name: str, most: int) -> list[Any]:
        value = self._get(name)
        if type(value) is not list or len(value) > most:
            self._wrong(name)
        return value

    def _get(self, name: str) -> Any:  # noqa: ANN401  (JSON: each caller checks the type)
        if name not in self._values:
            raise GuestProtocol(f"the guest left out {name} in {self._what}")
        return self._values[name]

    def _wrong(self, name: str) -> NoReturn:
        raise GuestProtocol(f"the guest sent a wrong {printable(name, QUOTED_MOST)} in {self._what}")


def read_object(payload: memoryview, what: str) -> Answer:
    """The JSON object in *payload*; *what* names it in errors.

    Duplicate keys, NaN and endless numbers are refused.
    """
    try:
        value = json.loads(
            str(payload, "utf-8"),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError) as error:
        raise GuestProtocol(f"the guest sent JSON that cannot be read in {what}") from error
    if type(value) is not dict:
        raise GuestProtocol(f"the guest sent no JSON object in {what}")
    return Answer(value, what)


def refusal(payload: memoryview) -> AgentRefused:
    """The error that an ERROR frame carries. A code we do not know counts as ``internal``."""
    answer = read_object(payload, "ERROR")
    code = answer.text("code", 64)
    message = printable(answer.text("message", len(payload)), MESSAGE_MOST)
    return AgentRefused(f"the guest refused: {message or code}", guest_code=code if code in ERROR_CODES else "internal")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands twice")
    return values


def _integer(digits: str) -> int:
    if len(digits) > DIGITS_MOST:
        raise ValueError("a number is too long")
    return int(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
