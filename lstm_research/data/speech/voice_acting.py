"""Voice acting of a computer game, "Fish Fillets: Next Generation": Czech and Dutch, with the exact lines.

Actors speak the dialogues of the game's levels; two fishes have most of the lines, and the Czech version has some
thirty other characters. Whole levels are held out, mostly the same ones in both languages. A line that is said in
several levels is left out of training (or validation) if another split holds it out. Left out are also recordings
without a line, lines without a text, with digits (how they are said is not written), or with a place for what the game
fills in, one that is half Russian by mistake, and recordings without samples, of over 14 seconds, or of more than 22
characters a second, for which CTC would have too few steps where several frames are read as one.
"""

import functools
import re
from pathlib import Path, PurePosixPath

from lstm_research.data.debian import DebianPackages, check_count, read_files
from lstm_research.data.examples import Utterance, normalize
from lstm_research.data.held_out import hold_out, letters
from lstm_research.data.prepared import PreparedDataset
from lstm_research.data.speech.audio import LONGEST, decode, utterance_features

SAMPLE_RATE = 16_000
LANGUAGES = ("cs", "nl")
LEAST = 1_400
FASTEST = 22  # characters a second
# dialogId("name", "font", "English line") dialogStr("line"), and a line may have escaped characters.
_TEXT = r'"((?:[^"\\]|\\.)*)"'
_DIALOG = re.compile(rf"dialogId\(\s*{_TEXT}\s*,\s*{_TEXT}\s*,\s*{_TEXT}\s*\)\s*dialogStr\(\s*{_TEXT}\s*\)")
_ESCAPED = re.compile(r"\\(.)")
_UNFIT = re.compile("[%0-9а-яА-Я]")


def read_lines(script: str) -> dict[str, tuple[str, str]]:
    """Returns who speaks and what, by the names of the lines in one of the game's scripts.

    Who speaks is told by the colour or font of the subtitle: `small` and `big` are the two fishes.
    """
    return {
        name: (font.removeprefix("font_"), normalize(_ESCAPED.sub(r"\1", line)))
        for name, font, _, line in _DIALOG.findall(script)
    }


def extract(packages: DebianPackages, language: str, debs: tuple[Path, ...]) -> dict[str, list[Utterance]]:
    """Returns the utterances of every split, a tenth of them each for validation and test.

    An utterance is called `LEVEL/SPEAKER/LINE`.
    """
    files = read_files(
        debs, lambda path: path.endswith((f"dialogs_{language}.lua", ".ogg")) and "/fillets-ng/" in f"/{path}"
    )
    lines: dict[tuple[str, str], tuple[str, str]] = {}
    for path, data in sorted(files.items()):
        if path.endswith(".lua"):
            level = PurePosixPath(path).parent.name
            lines |= {(level, name): line for name, line in read_lines(data.decode("utf-8")).items()}
    utterances = []
    for path, data in sorted(files.items()):
        folders = PurePosixPath(path).parts
        if not path.endswith(".ogg") or folders[-2] != language:
            continue
        level, name = folders[folders.index("sound") + 1], PurePosixPath(path).stem
        speaker, line = lines.get((level, name), ("", ""))
        if not line or _UNFIT.search(line):
            continue
        try:
            signal = decode(data, SAMPLE_RATE).signal
        except ValueError:  # two files have no samples
            continue
        seconds = len(signal) / SAMPLE_RATE
        if seconds > LONGEST or len(line) > FASTEST * seconds:
            continue
        utterances.append(Utterance(f"{level}/{speaker}/{name}", signal, line))
    check_count(packages, f"utterances in {language!r}", len(utterances), LEAST)
    return split_by_level(utterances)


def split_by_level(utterances: list[Utterance]) -> dict[str, list[Utterance]]:
    """Divides utterances by levels, and leaves out what a split further from training also says."""
    num = len(utterances) // 10
    splits = hold_out(utterances, lambda each: each.name.split("/")[0], num_valid=num, num_test=num)
    said: set[str] = set()
    for split in ("test", "valid", "train"):
        kept = [each for each in splits[split] if letters(each.transcript) not in said]
        said |= {letters(each.transcript) for each in splits[split]}
        splits[split] = kept
    return splits


def _prepared(language: str) -> PreparedDataset[Utterance]:
    packages = DebianPackages("fillets", ("fillets-ng-data", f"fillets-ng-data-{language}"), 110_000_000)
    return PreparedDataset(
        name="fillets",
        version="1.1.0",
        package=packages,
        parts=(language,),
        example=Utterance,
        features=utterance_features,
        extract=functools.partial(extract, packages),
        license="GPL 2",
        needed_bytes=500_000_000,
    )


FILLETS = {language: _prepared(language) for language in LANGUAGES}
"""The voice acting by language."""
