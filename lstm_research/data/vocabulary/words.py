"""Words, and how a text is cut into them."""

import collections
import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, SupportsIndex

import numpy as np
from jaxtyping import Int

from lstm_research.common.errors import UserError
from lstm_research.data.vocabulary.base import END_OF_LINE, UNKNOWN, OnUnknown, Vocabulary

Tokenizer = Literal["whitespace", "punctuation"]

# The clitics of English apart from their word, as the Penn Treebank and the vectors of GloVe have them: do n't, it 's.
_WORD_OR_PUNCTUATION = re.compile(
    r"\w+?(?=n['’]t\b) | n['’]t\b | ['’](?:s|m|d|re|ve|ll)\b | \w+ | [^\w\s]", re.IGNORECASE | re.VERBOSE
)


def split_words(text: str, *, tokenizer: Tokenizer = "whitespace", lower_case: bool = False) -> list[list[str]]:
    """Returns the words of each line of `text`; text that ends in a newline gives a last line without words.

    Args:
      text: any text.
      tokenizer: "whitespace": words are what stands between white space; "punctuation": every punctuation mark is a
        word of its own, and English clitics are cut off as in "do n't" and "it 's".
      lower_case: whether the text is lower-cased first.
    """
    cut = str.split if tokenizer == "whitespace" else _WORD_OR_PUNCTUATION.findall
    return [cut(line) for line in (text.lower() if lower_case else text).split("\n")]


class WordVocabulary(Vocabulary):
    """Words in the conventions of the Penn Treebank files.

    Every line ends in `<eos>`; `<unk>` in the text is the unknown word. `<unk>` has id 0, `<eos>` id 1, and the words
    follow, the most frequent first.
    """

    kind = "words"

    def __init__(
        self,
        symbols: Sequence[str],
        *,
        on_unknown: OnUnknown = "replace",
        lower_case: bool = False,
        tokenizer: Tokenizer = "whitespace",
    ) -> None:
        super().__init__(symbols, on_unknown=on_unknown)
        self.lower_case = lower_case
        self.tokenizer: Tokenizer = tokenizer
        if self.symbols[:2] != (UNKNOWN, END_OF_LINE):
            raise UserError(f"a vocabulary of words begins with {UNKNOWN}, {END_OF_LINE}")

    def encode(self, text: str) -> Int[np.ndarray, "N"]:
        """Returns the ids of `text`, int32 [N]: one per word, and `<eos>` per newline character."""
        fallback = 0 if self.on_unknown == "replace" else -1
        ids: list[int] = []
        for index, words in enumerate(self._split(text)):
            if index:
                ids.append(self.end_id)
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
        words = (word for line in self._split(text) for word in line)
        return [word for word in dict.fromkeys(words) if word not in self.ids]

    def _split(self, text: str) -> list[list[str]]:
        return split_words(text, tokenizer=self.tokenizer, lower_case=self.lower_case)

    def _state(self) -> dict[str, Any]:
        return super()._state() | {"lower_case": self.lower_case, "tokenizer": self.tokenizer}


@dataclasses.dataclass(frozen=True)
class Words:
    """The config of a word vocabulary.

    Attributes:
      min_count: words that occur less often in the training text become `<unk>`.
      max_size: the largest number of symbols, `<unk>` and `<eos>` included; the most frequent words stay.
        None: no limit.
      lower_case: whether text is lower-cased first.
      tokenizer: how text is cut: "whitespace" (text that is cut already, such as the benchmark files) or
        "punctuation" (raw text), see `split_words`.
      unknown: what other words become: "replace" makes them `<unk>`, "error" stops and names them.
    """

    min_count: int = 1
    max_size: int | None = None
    lower_case: bool = False
    tokenizer: Tokenizer = "whitespace"
    unknown: OnUnknown = "replace"

    def __post_init__(self) -> None:
        if self.min_count < 1:
            raise UserError(f"vocabulary.min_count must be at least 1, got {self.min_count}")
        if self.max_size is not None and self.max_size < 3:
            raise UserError(
                f"vocabulary.max_size must be None or at least 3 ({UNKNOWN}, {END_OF_LINE}, a word), "
                f"got {self.max_size}"
            )

    def fit(self, documents: Iterable[str]) -> WordVocabulary:
        """Returns the vocabulary of the training documents.

        Raises:
          UserError: no word is left.
        """
        counts: collections.Counter[str] = collections.Counter()
        for document in documents:
            for words in split_words(document, tokenizer=self.tokenizer, lower_case=self.lower_case):
                counts.update(words)
        for special in (UNKNOWN, END_OF_LINE):
            counts.pop(special, None)
        # Ties in alphabetical order: ids must not depend on the order of documents.
        kept = sorted(
            (word for word, n in counts.items() if n >= self.min_count), key=lambda word: (-counts[word], word)
        )
        if not kept:
            raise UserError(
                f"vocabulary.min_count={self.min_count}: no word of the training text occurs so often "
                f"(the most frequent: {max(counts.values(), default=0):,} times); lower it, or give more text"
            )
        if self.max_size is not None:
            kept = kept[: self.max_size - 2]
        return WordVocabulary(
            [UNKNOWN, END_OF_LINE, *kept],
            on_unknown=self.unknown,
            lower_case=self.lower_case,
            tokenizer=self.tokenizer,
        )
