"""A page of texts whose words are coloured by the weight that a classifier's attention gives them."""

import html
from collections.abc import Sequence

from lstm_research.analysis.page import page
from lstm_research.tasks.text_classification import Prediction

ATTENTION_STYLE = """.scale { display: inline-block; width: 6rem; height: .8em; border: 1px solid var(--line);
  vertical-align: middle; background: linear-gradient(to right, rgb(var(--mark) / 0), rgb(var(--mark) / .8)); }
article { border-top: 1px solid var(--line); padding: .6rem 0; line-height: 1.7; }
article h3 { margin: 0; }
h3 small { color: var(--faint); font-weight: normal; }
article p { margin: .2rem 0; white-space: pre-wrap; }
.w { background: rgb(var(--mark) / calc(.8 * var(--a))); border-radius: .2em; }
.empty { color: var(--faint); font-style: italic; }
"""
_LEGEND = """<p class="faint">Attention: <span class="scale"></span> from none to the largest weight of the text.
Pointing at a word shows its weight; the weights of a text sum to 1.</p>
"""


def attention_page(predictions: Sequence[Prediction], *, title: str, separator: str) -> str:
    """Returns an HTML page that needs nothing besides itself.

    Args:
      predictions: with attention.
      title: of the page.
      separator: what stands between words: a space, or nothing where the spaces are among the symbols.
    """
    return page(title, attention_articles(predictions, separator=separator), style=ATTENTION_STYLE, width="60rem")


def attention_articles(predictions: Sequence[Prediction], *, separator: str) -> str:
    """Returns the page's content, for use with `ATTENTION_STYLE` in another page; see `attention_page`."""
    return _LEGEND + "".join(_article(number, each, separator) for number, each in enumerate(predictions, 1))


def _article(number: int, prediction: Prediction, separator: str) -> str:
    if prediction.label is None:
        answer, detail = f"{prediction.score:.3f}", ""
    else:
        answer, detail = prediction.label, f" · probability {max(prediction.probabilities):.3f}"
    weights = prediction.attention or ()
    largest = max(weights, default=1.0)
    words = separator.join(
        f'<span class="w" style="--a:{weight / largest:.3f}" title="{weight:.4f}">{html.escape(word)}</span>'
        for word, weight in zip(prediction.words, weights, strict=True)
    )
    text = f"<p>{words}</p>" if words else '<p class="empty">empty text</p>'
    heading = f"<h3><small>{number}.</small> {html.escape(answer)}<small>{detail}</small></h3>"
    return f"<article>\n{heading}\n{text}\n</article>\n"
