"""A page of texts whose words are coloured by the weight that a classifier's attention gives them."""

import html
from collections.abc import Sequence

from lstm_research.tasks.text_classification import Prediction

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark;
  --page: #fff; --ink: #1b1f24; --faint: #5c6570; --line: #d5dae0; --mark: 255 150 0; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --page: #14171a; --ink: #e8eaed; --faint: #a0a8b0; --line: #383e45; --mark: 214 110 0; }}
}}
body {{ margin: 0 auto; max-width: 60rem; padding: 1rem; background: var(--page); color: var(--ink);
  font: 1rem/1.7 system-ui, sans-serif; }}
h1 {{ font-size: 1.3rem; line-height: 1.3; margin: 0 0 .5rem; overflow-wrap: anywhere; }}
.legend {{ color: var(--faint); font-size: .9rem; margin: 0 0 1rem; }}
.scale {{ display: inline-block; width: 6rem; height: .8em; border: 1px solid var(--line); vertical-align: middle;
  background: linear-gradient(to right, rgb(var(--mark) / 0), rgb(var(--mark) / .8)); }}
article {{ border-top: 1px solid var(--line); padding: .6rem 0; }}
h2 {{ font-size: 1rem; margin: 0; }}
h2 small {{ color: var(--faint); font-weight: normal; }}
p {{ margin: .2rem 0; overflow-wrap: anywhere; white-space: pre-wrap; }}
.w {{ background: rgb(var(--mark) / calc(.8 * var(--a))); border-radius: .2em; }}
.empty {{ color: var(--faint); font-style: italic; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="legend">Attention: <span class="scale"></span> from none to the largest weight of the text. Pointing at a word
shows its weight; the weights of a text sum to 1.</p>
{articles}</body>
</html>
"""


def attention_page(predictions: Sequence[Prediction], *, title: str, separator: str) -> str:
    """Returns an HTML page that needs nothing besides itself.

    Args:
      predictions: with attention.
      title: of the page.
      separator: what stands between words: a space, or nothing where the spaces are among the symbols.
    """
    articles = "".join(_article(number, each, separator) for number, each in enumerate(predictions, 1))
    return _PAGE.format(title=html.escape(title), articles=articles)


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
    heading = f"<h2><small>{number}.</small> {html.escape(answer)}<small>{detail}</small></h2>"
    return f"<article>\n{heading}\n{text}\n</article>\n"
