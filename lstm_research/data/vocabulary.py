"""Vocabularies: text to token ids and back.

A vocabulary is fitted on the training documents alone and saved with the run. What lies outside it is never dropped in
silence: either the config says that it becomes `<unk>`, or it is an error that names it.
"""

import collections
import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, SupportsIndex

import numpy as np
from jaxtyping import Int

from lstm_research.common.errors import UserError, unknown

UNKNOWN = "<unk>"
END_OF_LINE = "<eos>"
REPLACEMENT = "\ufffd"  # how a text shows a character that the vocabulary does not have

OnUnknown = Literal["error", "replace"]


class Vocabulary:
    """A bijection between symbols and the ids 0 ... V-1; the base of `CharacterVocabulary` and `WordVocabulary`."""

    kind: ClassVar[str]

    def __init__(self, symbols: Sequence[str], *, on_unknown: OnUnknown) -> None:
        self.symbols = tuple(symbols)
        self.on_unknown = on_unknown
        self.ids = {symbol: index for index, symbol in enumerate(self.symbols)}
        if len(self.ids) != len(self.symbols):
            raise UserError(f"a vocabulary of {self.kind} lists a symbol twice")

    def __len__(self) -> int:
        return len(self.symbols)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self._state() == other._state()

    def __hash__(self) -> int:
        return hash((self.kind, self.symbols))

    def encode(self, text: str) -> Int[np.ndarray, "N"]:
        """Returns the ids of `text`, int32 [N].

        Raises:
          UserError: `text` has symbols outside the vocabulary, and the vocabulary does not replace them; the message
            names them.
        """
        raise NotImplementedError

    def encode_document(self, text: str) -> Int[np.ndarray, "N"]:
        """Returns the ids of a whole document, int32 [N]; as `encode`, but the last line counts as ended."""
        return self.encode(text)

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Returns the text of token ids."""
        raise NotImplementedError

    def unknown_symbols(self, text: str) -> list[str]:
        """Returns the distinct symbols of `text` that lie outside the vocabulary, in order of appearance."""
        raise NotImplementedError

    def count_unknown(self, ids: Int[np.ndarray, "N"]) -> int:
        """Returns how many of the token ids [N] are `<unk>`."""
        return int((ids == self.ids[UNKNOWN]).sum()) if UNKNOWN in self.ids else 0

    def to_json(self) -> str:
        """Returns the vocabulary as JSON text; `from_json` reads it back."""
        return json.dumps(self._state(), ensure_ascii=False, indent=1) + "\n"

    def _state(self) -> dict[str, Any]:
        return {"name": self.kind, "on_unknown": self.on_unknown, "symbols": list(self.symbols)}

    def _refuse(self, outside: Sequence[str]) -> UserError:
        """The error for symbols outside a vocabulary that does not replace them."""
        shown = ", ".join(map(repr, outside[:20])) + (f" and {len(outside) - 20} more" if len(outside) > 20 else "")
        return UserError(
            f"{self.kind} outside the vocabulary of {len(self)}: {shown}; "
            f'leave them out, or train with vocabulary.unknown="replace"'
        )


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


class WordVocabulary(Vocabulary):
    """Words between white space, in the conventions of the Penn Treebank files.

    Every line ends in `<eos>`; `<unk>` in the text is the unknown word. `<unk>` has id 0, `<eos>` id 1, and the words
    follow, the most frequent first.
    """

    kind = "words"

    def __init__(self, symbols: Sequence[str], *, on_unknown: OnUnknown = "replace", lower_case: bool = False) -> None:
        super().__init__(symbols, on_unknown=on_unknown)
        self.lower_case = lower_case
        if self.symbols[:2] != (UNKNOWN, END_OF_LINE):
            raise UserError(f"a vocabulary of words begins with {UNKNOWN}, {END_OF_LINE}")

    def encode(self, text: str) -> Int[np.ndarray, "N"]:
        """Returns the ids of `text`, int32 [N]: one per word, and `<eos>` per newline character."""
        end = self.ids[END_OF_LINE]
        fallback = 0 if self.on_unknown == "replace" else -1
        ids: list[int] = []
        lines = split_words(text, self.lower_case)
        for index, words in enumerate(lines):
            if index:
                ids.append(end)
            ids.extend([self.ids.get(word, fallback) for word in words])
        array = np.array(ids, np.int32)
        if fallback < 0 and (array < 0).any():
            raise self._refuse(self.unknown_symbols(text))
        return array

    def encode_document(self, text: str) -> Int[np.ndarray, "N"]:
        """Returns the ids of a whole document, int32 [N]; a last line without newline ends in `<eos>` too."""
        return self.encode(text if text.endswith("\n") else text + "\n")

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Returns the text of token ids: words between single spaces, `<eos>` as a newline."""
        lines: list[list[str]] = [[]]
        for i in ids:
            if self.symbols[i] == END_OF_LINE:
                lines.append([])
            else:
                lines[-1].append(self.symbols[i])
        return "\n".join(map(" ".join, lines))

    def unknown_symbols(self, text: str) -> list[str]:
        """Returns the distinct words of `text` that lie outside the vocabulary, in order of appearance."""
        words = (word for line in split_words(text, self.lower_case) for word in line)
        return [word for word in dict.fromkeys(words) if word not in self.ids]

    def _state(self) -> dict[str, Any]:
        return super()._state() | {"lower_case": self.lower_case}


def split_words(text: str, lower_case: bool = False) -> list[list[str]]:
    """Returns the words of each line of `text`; text that ends in a newline gives a last line without words."""
    return [line.split() for line in (text.lower() if lower_case else text).split("\n")]


def from_json(text: str) -> Vocabulary:
    """Reads the JSON text that `Vocabulary.to_json` wrote.

    Raises:
      UserError: the text is not a saved vocabulary.
    """
    try:
        state = json.loads(text)
        kind = state.pop("name")
        symbols = state.pop("symbols")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"vocabulary.json: not a saved vocabulary ({error!r})") from error
    if kind not in _KINDS:
        raise unknown("vocabulary", kind, _KINDS)
    return _KINDS[kind](symbols, **state)


_KINDS: dict[str, Any] = {kind.kind: kind for kind in (CharacterVocabulary, WordVocabulary)}


@dataclasses.dataclass(frozen=True)
class Characters:
    """The config of a character vocabulary.

    Attributes:
      unknown: what a character becomes that the training text does not have: "error" stops and names it, "replace"
        makes it `<unk>`.
    """

    unknown: Literal["error", "replace"] = "error"

    def fit(self, documents: Iterable[str]) -> CharacterVocabulary:
        """Returns the vocabulary of the training documents."""
        characters = sorted(set().union(*map(set, documents)))
        return CharacterVocabulary(
            [UNKNOWN, *characters] if self.unknown == "replace" else characters, on_unknown=self.unknown
        )


@dataclasses.dataclass(frozen=True)
class Words:
    """The config of a word vocabulary.

    Attributes:
      min_count: words that occur less often in the training text become `<unk>`.
      max_size: the largest number of symbols, `<unk>` and `<eos>` included; the most frequent words stay.
        None: no limit.
      lower_case: whether text is lower-cased first.
      unknown: what other words become: "replace" makes them `<unk>`, "error" stops and names them.
    """

    min_count: int = 1
    max_size: int | None = None
    lower_case: bool = False
    unknown: Literal["error", "replace"] = "replace"

    def __post_init__(self) -> None:
        if self.min_count < 1:
            raise UserError(f"vocabulary.min_count must be at least 1, got {self.min_count}")
        if self.max_size is not None and self.max_size < 3:
            raise UserError(
                f"vocabulary.max_size must be None or at least 3 ({UNKNOWN}, {END_OF_LINE}, a word), "
                f"got {self.max_size}"
            )

    def fit(self, documents: Iterable[str]) -> WordVocabulary:
        """Returns the vocabulary of the training documents."""
        counts: collections.Counter[str] = collections.Counter()
        for document in documents:
            for words in split_words(document, self.lower_case):
                counts.update(words)
        for special in (UNKNOWN, END_OF_LINE):
            counts.pop(special, None)
        # Ties in alphabetical order: ids must not depend on the order of documents.
        kept = sorted(
            (word for word, n in counts.items() if n >= self.min_count), key=lambda word: (-counts[word], word)
        )
        if self.max_size is not None:
            kept = kept[: self.max_size - 2]
        return WordVocabulary([UNKNOWN, END_OF_LINE, *kept], on_unknown=self.unknown, lower_case=self.lower_case)


VOCABULARIES: dict[str, Any] = {"characters": Characters, "words": Words}
