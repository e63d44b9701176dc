"""BLEU and chrF as sacrebleu computes them, so that they compare with published figures."""

import re
from collections.abc import Sequence
from typing import Any

# Languages written without spaces between words. sacrebleu has a tokenizer for Chinese; that of Japanese words needs a
# dictionary that it does not bring along, and for the others it has none, so BLEU is over characters there. The
# signature says which (tok:zh, tok:char).
_TOKENIZERS = {"zh": "zh"} | dict.fromkeys(("ja", "th", "lo", "km", "my"), "char")


def corpus_scores(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], language: str
) -> tuple[dict[str, float], dict[str, str]]:
    """Scores translations of a whole split.

    Post, "A Call for Clarity in Reporting BLEU Scores", 2018; Papineni et al., "BLEU", 2002; Popović, "chrF", 2015.

    Args:
      hypotheses: one translation for each sentence.
      references: the true translations of each sentence; sentences may have different numbers of them.
      language: of the translations, which decides how BLEU finds words: a code as in "ja" or "zh-CN", or the path to a
        feature of this name.

    Returns:
      `bleu` and `chrf`, from 0 to 100, and their signatures: how they were computed.
    """
    from sacrebleu.metrics import BLEU, CHRF  # imported where it is used: it loads slowly

    code = re.split("[-_]", language.rpartition("/")[2].lower())[0]
    metrics: dict[str, Any] = {"bleu": BLEU(tokenize=_TOKENIZERS.get(code, "13a")), "chrf": CHRF()}
    # Stream k holds every sentence's k-th reference, None where there is none.
    streams = [
        [refs[k] if k < len(refs) else None for refs in references] for k in range(max(map(len, references), default=1))
    ]
    scores = {name: float(metric.corpus_score(hypotheses, streams).score) for name, metric in metrics.items()}
    return scores, {name: str(metric.get_signature()) for name, metric in metrics.items()}
