"""Pre-trained word vectors from text files, as GloVe and word2vec write them."""

import codecs
import os
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int

from lstm_research.common.errors import UserError
from lstm_research.data.vocabulary import Vocabulary


def read_vectors(
    path: str, vocabulary: Vocabulary, width: int
) -> tuple[Int[np.ndarray, "n"], Float32[np.ndarray, "n D"]]:
    """Reads the vectors of the words that a vocabulary has; the file is read line by line.

    A line is a word and its numbers, with white space between them; the word may have spaces itself, as some of GloVe
    do. A first line of two integers, as word2vec writes it, is the number of words and the width. Of a word that comes
    twice, the first vector counts. Words are compared as they are, upper and lower case too.

    Args:
      path: the file, UTF-8.
      vocabulary: whose symbols are looked for.
      width: D, how many numbers a vector must have.

    Returns:
      The ids of the words found, increasing, and their vectors.

    Raises:
      UserError: no such file, vectors of another width, a line that is not a word and its numbers (the message has the
        line's number), fewer lines than the first one says, or not one word of the vocabulary.
    """
    found: dict[int, np.ndarray] = {}
    count, promised = 0, None
    try:
        with Path(os.path.expanduser(path)).open("rb") as lines:  # bytes: words that nobody looks for need not be UTF-8
            for number, line in enumerate(lines, 1):
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                    promised, width_found = _read_first(line)
                    if not width_found:
                        raise _bad_line(path, number, width)
                    if width_found != width:
                        raise UserError(
                            f"{path} has vectors of width {width_found}, but model.embedding_size is {width}; "
                            f"set model.embedding_size={width_found}, or give another file"
                        )
                    if promised is not None:
                        continue
                if not line.strip():
                    continue
                word, *numbers = line.rsplit(None, width)
                if len(numbers) < width:
                    raise _bad_line(path, number, width)
                count += 1
                index = vocabulary.ids.get(word.decode("utf-8", "replace"))
                if index is None or index in found:
                    continue
                try:
                    found[index] = np.array(numbers, np.float32)
                except ValueError as error:
                    raise _bad_line(path, number, width) from error
                if not np.isfinite(found[index]).all():
                    raise _bad_line(path, number, width)
    except OSError as error:
        raise UserError(f"cannot read the vectors in {path} ({(error.strerror or str(error)).lower()})") from error
    if promised is not None and count < promised:
        raise UserError(f"{path} is incomplete: its first line says {promised:,} words, but {count:,} follow")
    if not found:
        raise UserError(f"{path} has not one of the {len(vocabulary):,} {vocabulary.kind} of the vocabulary")
    ids = np.array(sorted(found))
    return ids, np.stack([found[index] for index in ids])


def _read_first(line: bytes) -> tuple[int | None, int]:
    """Returns how many words the first line of a file says there are, if it says so, and the width of the vectors."""
    fields = line.split()
    if len(fields) == 2 and all(field.isdigit() for field in fields):
        return int(fields[0]), int(fields[1])
    width = 0
    while width < len(fields) - 1 and _is_number(fields[-1 - width]):
        width += 1
    return None, width


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _bad_line(path: str, number: int, width: int) -> UserError:
    return UserError(
        f"{path}, line {number}: not a word and {width} numbers; a binary file must be converted to text first"
    )
