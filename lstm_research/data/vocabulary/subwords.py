"""Subwords: frequent words whole, rare ones in pieces (SentencePiece: Kudo and Richardson, 2018)."""

import base64
import dataclasses
import io
import re
from collections.abc import Iterable
from typing import Any, Literal, SupportsIndex

import numpy as np
import sentencepiece
from jaxtyping import Int

from lstm_research.common.errors import UserError
from lstm_research.data.vocabulary.base import END_OF_LINE, REPLACEMENT, UNKNOWN, OnUnknown, Vocabulary

SPACE = "\u2581"  # how pieces write a space


class SubwordVocabulary(Vocabulary):
    """Pieces of words, in which "▁" is a space; `<unk>` has id 0, `<eos>` id 1.

    Every line begins with an added "▁" and ends in `<eos>`. Text goes there and back exactly (spaces included), but
    for characters outside the vocabulary and for a "▁" in the text, which comes back as a space.

    Args:
      model: a SentencePiece model, base64.
      on_unknown: what becomes of characters outside the vocabulary.
      lower_case: whether text is lower-cased first.
    """

    kind = "subwords"

    def __init__(self, model: str, *, on_unknown: OnUnknown = "replace", lower_case: bool = False) -> None:
        self.model = model
        self.lower_case = lower_case
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=base64.b64decode(model, validate=True))
        size = self._processor.get_piece_size()
        super().__init__([self._processor.id_to_piece(i) for i in range(size)], on_unknown=on_unknown)
        if self.symbols[:2] != (UNKNOWN, END_OF_LINE):
            raise UserError(f"a vocabulary of subwords begins with {UNKNOWN}, {END_OF_LINE}")

    def encode(self, text: str) -> Int[np.ndarray, "N"]:
        """Returns the ids of `text`, int32 [N]: those of the lines' pieces, and `<eos>` per newline character."""
        if self.on_unknown == "error" and (outside := self.unknown_symbols(text)):
            raise self._refuse(outside)
        ids: list[int] = []
        for index, line in enumerate(_prepared(text, self.lower_case).split("\n")):
            if index:
                ids.append(self.end_id)
            ids.extend(self._processor.encode(line))  # a list of lines would wake threads, which takes 0.1 ms
        return np.array(ids, np.int32)

    def encode_document(self, text: str) -> Int[np.ndarray, "N"]:
        """Returns the ids of a whole document, int32 [N]; a last line without newline ends in `<eos>` too."""
        return self.encode(text if text.endswith("\n") else text + "\n")

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Returns the text of token ids: pieces joined to words, `<eos>` as a newline, `<unk>` as U+FFFD."""
        lines: list[list[int]] = [[]]
        for i in map(int, ids):
            if i == self.end_id:
                lines.append([])
            else:
                lines[-1].append(i)
        return "\n".join(self._processor.decode(line) for line in lines)

    def unknown_symbols(self, text: str) -> list[str]:
        """Returns the distinct characters of `text` that lie outside the vocabulary, in order of appearance."""
        characters = dict.fromkeys(_prepared(text, self.lower_case))
        return [c for c in characters if c != "\n" and (SPACE if c == " " else c) not in self.ids]

    def _state(self) -> dict[str, Any]:
        return {"on_unknown": self.on_unknown, "lower_case": self.lower_case, "model": self.model}


@dataclasses.dataclass(frozen=True)
class Subwords:
    """The config of a subword vocabulary.

    Attributes:
      size: the number of symbols, `<unk>` and `<eos>` included.
      model_type: "unigram" (Kudo, "Subword Regularization", 2018) or "bpe" (Sennrich, Haddow and Birch, "Neural
        Machine Translation of Rare Words with Subword Units", 2016).
      character_coverage: the part of the training text's characters that must be in the vocabulary; the rarest others
        are outside.
      lower_case: whether text is lower-cased first.
      unknown: what characters outside become: "replace" makes them `<unk>`, "error" stops and names them.
    """

    size: int = 8000
    model_type: Literal["unigram", "bpe"] = "unigram"
    character_coverage: float = 0.9995
    lower_case: bool = False
    unknown: OnUnknown = "replace"

    def __post_init__(self) -> None:
        if self.size < 4:
            raise UserError(
                f"vocabulary.size must be at least 4 ({UNKNOWN}, {END_OF_LINE}, {SPACE}, a character), got {self.size}"
            )
        if not 0.98 <= self.character_coverage <= 1:  # the library's own limits
            raise UserError(f"vocabulary.character_coverage must be between 0.98 and 1, got {self.character_coverage}")

    def fit(self, documents: Iterable[str]) -> SubwordVocabulary:
        """Returns the vocabulary of the training documents; the same text gives the same vocabulary.

        Raises:
          UserError: the text is too small for `size`, or has more characters than that.
        """
        lines = (line for text in documents for line in _prepared(text, self.lower_case).split("\n") if line)
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=lines,
                model_writer=model,
                model_type=self.model_type,
                vocab_size=self.size,
                character_coverage=self.character_coverage,
                unk_id=0,
                unk_piece=UNKNOWN,
                unk_surface=REPLACEMENT,
                eos_id=1,
                eos_piece=END_OF_LINE,
                bos_id=-1,
                pad_id=-1,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                max_sentence_length=2**30,  # or longer lines would be left out, and that without a word
                minloglevel=2,
            )
        except RuntimeError as error:
            raise _explained(error, self.size) from error
        return SubwordVocabulary(
            base64.b64encode(model.getvalue()).decode(), on_unknown=self.unknown, lower_case=self.lower_case
        )


def _prepared(text: str, lower_case: bool) -> str:
    """Returns text as the library takes it: lone surrogates are not Unicode text."""
    text = re.sub("[\ud800-\udfff]", REPLACEMENT, text)
    return text.lower() if lower_case else text


def _explained(error: RuntimeError, size: int) -> UserError:
    """The library's error as one line with the way out."""
    message = str(error)
    if found := re.search(r"size too high.*<= (\d+)", message):
        return UserError(
            f"vocabulary.size={size} is too large for the training text, which has at most {found[1]} subwords; "
            "lower it, or give more text"
        )
    if found := re.search(r"smaller than required_chars. \d+ vs (\d+)", message):
        return UserError(
            f"vocabulary.size={size} is too small for the characters of the training text; give at least {found[1]}, "
            "or lower vocabulary.character_coverage"
        )
    if "sentences_.empty()" in message:
        return UserError("vocabulary: the training text has no line to learn subwords from")
    return UserError(f"vocabulary: no subwords can be learnt from the training text ({message})")
