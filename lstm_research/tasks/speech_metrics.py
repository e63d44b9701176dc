"""Word and character error rates as jiwer computes them, so that they compare with published figures."""

from collections.abc import Sequence

from lstm_research.common.errors import UserError

ERROR_RATES = ("wer", "cer", "substitutions", "deletions", "insertions")
"""The names of what `error_rates` returns."""


def error_rates(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Compares transcripts with what was said, over a whole corpus: all edits over all symbols, not a mean of rates.

        wer = substitutions + deletions + insertions

    are the least edits of words that make the references out of what was recognised, as shares of the references'
    words; more than 1 is possible. `cer` is the same of characters, one space between words among them. Nothing is
    normalised but white space: case and punctuation count, and what is recognised where a reference is empty is all
    insertions. Morris, Maier and Green, "From WER and RIL to MER and WIL", 2004.

    Args:
      hypotheses: what was recognised.
      references: what was said.

    Raises:
      UserError: no reference has a word, so there is no rate.
    """
    import jiwer  # imported where it is used: it loads slowly

    said, heard = ([" ".join(text.split()) for text in texts] for texts in (references, hypotheses))
    if not any(said):
        raise UserError(f"word error rate: all {len(said)} transcripts are empty, so there is nothing to compare with")
    words, characters = jiwer.process_words(said, heard), jiwer.process_characters(said, heard)
    num_words = words.hits + words.substitutions + words.deletions
    parts = {name: getattr(words, name) / num_words for name in ERROR_RATES[2:]}
    return {"wer": words.wer, "cer": characters.cer, **parts}
