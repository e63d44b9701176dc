"""Vocabularies: text to token ids and back.

A vocabulary is fitted on the training documents alone and saved with the run. What lies outside it is never dropped in
silence: either the config says that it becomes `<unk>`, or it is an error that names it.
"""

import json
from typing import Any

from lstm_research.common.errors import UserError, unknown
from lstm_research.data.vocabulary.base import END_OF_LINE, REPLACEMENT, UNKNOWN, Vocabulary
from lstm_research.data.vocabulary.characters import Bytes, ByteVocabulary, Characters, CharacterVocabulary
from lstm_research.data.vocabulary.subwords import Subwords, SubwordVocabulary
from lstm_research.data.vocabulary.words import Words, WordVocabulary, split_words

VOCABULARIES: dict[str, Any] = {"characters": Characters, "bytes": Bytes, "words": Words, "subwords": Subwords}
"""The config of every kind by the name that configs use."""

_KINDS: dict[str, Any] = {
    kind.kind: kind for kind in (CharacterVocabulary, ByteVocabulary, WordVocabulary, SubwordVocabulary)
}


def from_json(text: str) -> Vocabulary:
    """Reads the JSON text that `Vocabulary.to_json` wrote.

    Raises:
      UserError: the text is not a saved vocabulary.
    """
    try:
        state = json.loads(text)
        kind = state.pop("name")
        if kind not in _KINDS:
            raise unknown("vocabulary", kind, _KINDS)
        return _KINDS[kind](**state)
    except UserError:
        raise
    except (ValueError, KeyError, AttributeError, TypeError, RuntimeError) as error:
        raise UserError(f"vocabulary.json: not a saved vocabulary ({error!r})") from error


__all__ = [
    "END_OF_LINE",
    "REPLACEMENT",
    "UNKNOWN",
    "VOCABULARIES",
    "ByteVocabulary",
    "Bytes",
    "CharacterVocabulary",
    "Characters",
    "SubwordVocabulary",
    "Subwords",
    "Vocabulary",
    "WordVocabulary",
    "Words",
    "from_json",
    "split_words",
]
