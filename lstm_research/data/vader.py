"""Texts whose sentiment ten or more people scored from -4 to 4, from a published package.

Hutto and Gilbert, "VADER: a parsimonious rule-based model for sentiment analysis of social media text", ICWSM 2014.
A score is the mean over people, in float32. `movies` are sentences of film reviews, nearly all of them those of Rotten
Tomatoes (so whoever was trained on the one has seen texts of the other); `amazon` are sentences of product reviews and
`news` of newspaper editorials; `tweets` are whole. Each is divided 80/10/10 by a hash; the sentences of one review or
editorial, and equal texts, are all in one split.
HTML's entities (some of them escaped twice) become their characters, and white space single spaces.
"""

import html
import io
import re
import tarfile
from pathlib import Path

import numpy as np

from lstm_research.data.examples import LabelledText, normalize
from lstm_research.data.held_out import connected, hold_out
from lstm_research.data.packages import Package
from lstm_research.data.prepared import PreparedDataset

PACKAGE = Package(
    dataset="vader",
    name="vaderSentiment",
    version="3.3.2",
    filename="vaderSentiment-3.3.2.tar.gz",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    size=2_500_000,
    sdist=True,
)
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
FILES = {
    "movies": "movieReviewSnippets",
    "tweets": "tweets",
    "amazon": "amazonReviewSnippets",
    "news": "nytEditorialSnippets",
}


def extract(part: str, sdist: Path) -> dict[str, list[LabelledText]]:
    """Returns the texts of every split with their scores."""
    with tarfile.open(sdist) as outer:
        file = outer.extractfile(INNER)
        assert file is not None
        with tarfile.open(fileobj=io.BytesIO(file.read())) as inner:
            member = inner.extractfile(f"hutto_ICWSM_2014/{FILES[part]}_GroundTruth.txt")
            assert member is not None
            lines = member.read().decode("utf-8").split("\n")
    texts = {}
    for number, score, text in (line.split("\t") for line in lines):
        text = normalize(html.unescape(html.unescape(text)))
        texts[number] = LabelledText(text, float(np.float32(score)))
    # A number is that of the review or editorial, "_" and that of the sentence.
    find = connected((("of", re.sub("_.*", "", number)), ("text", text)) for number, (text, _) in texts.items())
    tenth = len(texts) // 10
    return hold_out(texts.values(), lambda text: repr(find(("text", text.text))), num_valid=tenth, num_test=tenth)


VADER = PreparedDataset(
    name="vader",
    version="1.0.0",
    package=PACKAGE,
    parts=tuple(FILES),
    example=LabelledText,
    features=lambda features: {"text": features.Text(), "label": features.Scalar(np.float32)},
    extract=extract,
    license="texts: gathered for research, scores and package: MIT",
)
