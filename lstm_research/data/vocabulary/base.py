"""What every vocabulary offers, and what becomes of symbols outside of it."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, SupportsIndex

import numpy as np
from jaxtyping import Int

from lstm_research.common.errors import UserError

UNKNOWN = "<unk>"
END_OF_LINE = "<eos>"
REPLACEMENT = "\ufffd"  # how a text shows a character that the vocabulary does not have

OnUnknown = Literal["error", "replace"]


class Vocabulary:
    """A bijection between symbols and the ids 0 ... V-1; the base of all kinds.

    Attributes:
      kind: the symbols' name in the plural.
      symbols: one printable string per id.
      ids: the id of each symbol.
      on_unknown: "error": symbols outside are refused; "replace": they become `<unk>`.
    """

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

    @property
    def end_id(self) -> int:
        """The id that ends a line or a sentence, and that a decoder starts from."""
        return self.ids[END_OF_LINE]

    def encode(self, text: str) -> Int[np.ndarray, "N"]:
        """Returns the ids of `text`, int32 [N]; a newline character is `end_id`.

        Raises:
          UserError: `text` has symbols outside the vocabulary, and the vocabulary does not replace them; the message
            names them.
        """
        raise NotImplementedError

    def encode_line(self, text: str) -> Int[np.ndarray, "N"]:
        """Returns the ids of one sentence, int32 [N], without `end_id`: a newline inside counts as a space."""
        return self.encode(text.replace("\n", " "))

    def encode_document(self, text: str) -> Int[np.ndarray, "N"]:
        """Returns the ids of a whole document, int32 [N]; as `encode`, but the last line counts as ended."""
        return self.encode(text)

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Returns the text of token ids."""
        raise NotImplementedError

    def incomplete(self, ids: Sequence[int]) -> int:
        """Returns how many of the last ids are the beginning of a character that ids to come may complete."""
        return 0

    def unknown_symbols(self, text: str) -> list[str]:
        """Returns the distinct symbols of `text` that lie outside the vocabulary, in order of appearance."""
        raise NotImplementedError

    def count_unknown(self, ids: Int[np.ndarray, "N"]) -> int:
        """Returns how many of the token ids [N] are `<unk>`."""
        return int((ids == self.ids[UNKNOWN]).sum()) if UNKNOWN in self.ids else 0

    def to_json(self) -> str:
        """Returns the vocabulary as JSON text; `from_json` reads it back."""
        return json.dumps({"name": self.kind} | self._state(), ensure_ascii=False, indent=1) + "\n"

    def _state(self) -> dict[str, Any]:
        """Returns the arguments that make an equal vocabulary."""
        return {"on_unknown": self.on_unknown, "symbols": list(self.symbols)}

    def _refuse(self, outside: Sequence[str]) -> UserError:
        """The error for symbols outside a vocabulary that does not replace them."""
        shown = ", ".join(map(repr, outside[:20])) + (f" and {len(outside) - 20} more" if len(outside) > 20 else "")
        return UserError(
            f"{self.kind} outside the vocabulary of {len(self)}: {shown}; "
            f'leave them out, or train with vocabulary.unknown="replace"'
        )
