"""The small data that the base configs name, in the current folder."""

from pathlib import Path

TEXTS = {
    "train.txt": "To be or not to be that is the question\n" * 3,
    "valid.txt": "to be or not to sit is that the question\n" * 2,
    "other.txt": "that is the question\nTo be or not to be\n" * 4,
    "train.csv": "text,label,other\nto be,yes,1\nor not to be,no,2\nthat is,yes,3\nnot to sit,no,1.5\nto be it,yes,2\n",
    "valid.csv": "text,label,other\nto sit,no,1\nor to be,yes,2\nis it,yes,1\n",
    "source.txt": "to be\nor not to be\nthat is it\nto sit\nnot to be\n",
    "target.txt": "eb ot\neb ot ton ro\nti si taht\ntis ot\neb ot ton\n",
    "other_source.txt": "to be it\nor to sit\nto be\n",
    "other_target.txt": "ti eb ot\ntis ot ro\neb ot\n",
}


def write_files() -> None:
    """Writes them."""
    for name, text in TEXTS.items():
        Path(name).write_text(text)
