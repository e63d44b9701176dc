"""The smallest symbols: characters and bytes."""

import codecs
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Int

from lstm_research.common.errors import UserError
from lstm_research.data.vocabulary.base import REPLACEMENT, UNKNOWN, OnUnknown, Vocabulary


class CharacterVocabulary(Vocabulary):
    """The distinct characters of the training text in code point order; with `replace`, `<unk>` is id 0 before them."""

    kind = "characters"

    def __init__(self, symbols: Sequence[str], *, on_unknown: OnUnknown = "error") -> None:
        super().__init__(symbols, on_unknown=on_unknown)
        characters = [symbol for symbol in self.symbols if symbol != UNKNOWN]
        if any(len(character) != 1 for character in characters):
            raise UserError("a vocabulary of characters has a symbol that is not one character")
        if (on_unknown == "replace") != (UNKNOWN in self.ids):
            raise UserError(f"a vocabulary of characters has {UNKNOWN} exactly if it replaces unknown characters")
        codes = np.array([ord(character) for character in characters], np.int64)
        self._id_of_code = np.full(int(codes.max(initial=0)) + 2, -1, np.int32)  # the last entry: every larger code
        self._id_of_code[codes] = [self.ids[character] for character in characters]

    @property
    def end_id(self) -> int:
        """The id of the newline character.

        Raises:
          UserError: the training text had none.
        """
        if "\n" not in self.ids:
            raise UserError("the vocabulary of characters has no newline, which is what ends a sentence")
        return self.ids["\n"]

    def _lookup(self, text: str) -> Int[np.ndarray, "N"]:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        return self._id_of_code[np.minimum(codes, len(self._id_of_code) - 1)]

    def encode(self, text: str) -> Int[np.ndarray, "N"]:
        """Returns the ids of the characters of `text`, int32 [N]."""
        ids = self._lookup(text)
        outside = ids < 0
        if outside.any():
            if self.on_unknown == "error":
                raise self._refuse(self.unknown_symbols(text))
            ids = np.where(outside, np.int32(self.ids[UNKNOWN]), ids)
        return ids

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Returns the text of token ids; `<unk>` shows as U+FFFD."""
        return "".join(REPLACEMENT if self.symbols[i] == UNKNOWN else self.symbols[i] for i in ids)

    def unknown_symbols(self, text: str) -> list[str]:
        """Returns the distinct characters of `text` that lie outside the vocabulary, in order of appearance."""
        return [character for character in dict.fromkeys(text) if character not in self.ids]


@dataclasses.dataclass(frozen=True)
class Characters:
    """The config of a character vocabulary.

    Attributes:
      unknown: what a character becomes that the training text does not have: "error" stops and names it, "replace"
        makes it `<unk>`.
    """

    unknown: OnUnknown = "error"

    def fit(self, documents: Iterable[str]) -> CharacterVocabulary:
        """Returns the vocabulary of the training documents."""
        characters = sorted(set().union(*map(set, documents)))
        return CharacterVocabulary(
            [UNKNOWN, *characters] if self.unknown == "replace" else characters, on_unknown=self.unknown
        )


class ByteVocabulary(Vocabulary):
    """The 256 bytes of UTF-8; the id of a byte is its value, so nothing lies outside.

    Bytes that are not UTF-8 are lone surrogates in a text, as Python's error handler "surrogateescape" has them.
    """

    kind = "bytes"
    end_id = ord("\n")

    def __init__(self) -> None:
        ascii_or_hex = (chr(i) if chr(i).isprintable() and i < 128 else f"<0x{i:02X}>" for i in range(256))
        super().__init__(list(ascii_or_hex), on_unknown="error")

    def encode(self, text: str) -> Int[np.ndarray, "N"]:
        """Returns the bytes of `text`, int32 [N]."""
        return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8).astype(np.int32)

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Returns the text of bytes; those that are not UTF-8 are lone surrogates, which `encode` takes back."""
        return bytes(map(int, ids)).decode("utf-8", "surrogateescape")

    def incomplete(self, ids: Sequence[int]) -> int:
        """Returns how many of the last bytes are the beginning of a character."""
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        decoder.decode(bytes(ids))
        return len(decoder.getstate()[0])

    def unknown_symbols(self, text: str) -> list[str]:
        """Returns no symbols: every text has bytes."""
        return []

    def _state(self) -> dict[str, Any]:
        return {}


@dataclasses.dataclass(frozen=True)
class Bytes:
    """The config of the vocabulary of bytes; there is nothing to choose."""

    def fit(self, documents: Iterable[str]) -> ByteVocabulary:
        """Returns the vocabulary; it is the same for all documents."""
        return ByteVocabulary()
