"""English telephone prompts of the Asterisk exchange, spoken by one woman, at 8 kHz.

The text that Asterisk's own list gives a prompt is its transcript, without what stands in brackets: notes such as
"[ascending tones]" or "(1 second of silence)". What is then without a text is left out, and so are recordings of over
14 seconds. Prompts of equal letters are in one split.
"""

import gzip
import re
from pathlib import Path, PurePosixPath

from lstm_research.data.debian import DebianPackages, check_count, read_files
from lstm_research.data.examples import Utterance, normalize
from lstm_research.data.held_out import hold_out, letters
from lstm_research.data.prepared import PreparedDataset
from lstm_research.data.speech.audio import LONGEST, decode, utterance_features

SAMPLE_RATE = 8_000
PACKAGES = DebianPackages("asterisk_prompts", ("asterisk-core-sounds-en", "asterisk-core-sounds-en-wav"), 18_300_000)
TEXTS = "core-sounds-en.txt.gz"
LEAST = 500
_NOTE = re.compile(r"\[[^\]]*\]|\([^)]*\)|<[^>]*>")


def read_texts(text: str) -> dict[str, str]:
    """Returns the transcripts by the names of the prompts; lines are `NAME: TEXT`, and comments begin with ";"."""
    lines = (line.partition(": ") for line in text.splitlines() if not line.startswith(";"))
    return {name: normalize(_NOTE.sub(" ", said)) for name, _, said in lines}


def extract(part: str, debs: tuple[Path, ...]) -> dict[str, list[Utterance]]:
    """Returns the prompts of every split, a tenth of them each for validation and test."""
    files = read_files(debs, lambda path: path.endswith((".wav", TEXTS)))
    (texts,) = (read_texts(gzip.decompress(data).decode("utf-8")) for path, data in files.items() if TEXTS in path)
    prompts = []
    for path, data in sorted(files.items()):
        _, _, name = str(PurePosixPath(path).with_suffix("")).partition("/sounds/")
        name = name.partition("/")[2]  # without the folder of the voice
        said = texts.get(name, "")
        if said and len(signal := decode(data, SAMPLE_RATE).signal) <= LONGEST * SAMPLE_RATE:
            prompts.append(Utterance(name, signal, said))
    check_count(PACKAGES, "prompts with a text", len(prompts), LEAST)
    num = len(prompts) // 10
    return hold_out(prompts, lambda each: letters(each.transcript), num_valid=num, num_test=num)


PROMPTS = PreparedDataset(
    name="asterisk_prompts",
    version="1.1.0",
    package=PACKAGES,
    parts=("en",),
    example=Utterance,
    features=utterance_features,
    extract=extract,
    license="CC BY-SA 3.0",
)
