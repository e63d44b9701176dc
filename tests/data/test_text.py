"""The user's own text files, and what a wrong file gets."""

from pathlib import Path

import pytest

from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.data.dataset import SPLITS
from lstm_research.data.text import DATASETS, TextFile, TextFiles
from lstm_research.data.vocabulary import VOCABULARIES


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    texts = {"train": "training text é\n", "valid": "valid\n", "test": "test\r\n"}
    for split, text in texts.items():
        (tmp_path / f"{split}.txt").write_bytes(text.encode())
    return {split: str(tmp_path / f"{split}.txt") for split in texts}


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_files_are_read_as_they_are(files: dict[str, str]) -> None:
    dataset = build(DATASETS, {"name": "text_files", **files}, where="dataset")
    assert [dataset.documents(split) for split in SPLITS] == [["training text é\n"], ["valid\n"], ["test\r\n"]]
    assert files["train"] in dataset.describe()


def test_a_path_is_a_document(files: dict[str, str]) -> None:
    dataset = TextFiles(train=(files["train"], files["valid"]), valid=files["valid"], test=files["test"])
    assert dataset.documents("train") == ["training text é\n", "valid\n"]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "bom.txt").write_bytes(b"\xef\xbb\xbf" + b"x" * 100)
    assert TextFile(path=str(tmp_path / "bom.txt")).documents("train") == ["x" * 90]


def test_the_fingerprint_tells_contents_apart(files: dict[str, str]) -> None:
    before = TextFiles(**files).fingerprint()
    assert TextFiles(**files).fingerprint() == before
    assert TextFiles(**files | {"test": files["valid"]}).fingerprint() != before
    both = TextFiles(train=(files["train"], files["valid"]), valid=files["valid"], test=files["test"])
    assert both.fingerprint() != before
    Path(files["test"]).write_text("Test\n")
    assert TextFiles(**files).fingerprint() != before


@pytest.mark.parametrize("fractions", [(0.9, 0.05, 0.05), (0.5, 0.25, 0.25), (0.34, 0.33, 0.33)])
def test_one_file_is_cut_in_order_without_loss(tmp_path: Path, fractions: tuple[float, float, float]) -> None:
    text = "".join(chr(0x100 + index) for index in range(1003))
    (tmp_path / "all.txt").write_text(text, encoding="utf-8")
    dataset = TextFile(path=str(tmp_path / "all.txt"), fractions=fractions)
    parts = [dataset.documents(split)[0] for split in SPLITS]
    assert "".join(parts) == text
    assert [len(part) for part in parts] == pytest.approx([1003 * fraction for fraction in fractions], abs=1)


def test_a_file_of_any_bytes_is_cut_at_exact_bytes(tmp_path: Path) -> None:
    data = "é".encode() * 250 + bytes(range(256)) * 2 + "\ufeff".encode()
    path = tmp_path / "bytes"
    path.write_bytes(data)
    dataset = build(DATASETS, {"name": "text_file", "path": str(path), "unit": "bytes"}, where="dataset")
    vocabulary = build(VOCABULARIES, {"name": "bytes"}, where="vocabulary").fit(dataset.documents("train"))
    parts = [bytes(vocabulary.encode(dataset.documents(split)[0]).tolist()) for split in SPLITS]
    assert b"".join(parts) == data
    cuts = [round(len(data) * fraction) for fraction in (0.9, 0.95)]
    assert parts == [data[: cuts[0]], data[cuts[0] : cuts[1]], data[cuts[1] :]]
    assert len(dataset.fingerprint()) == 64
    with pytest.raises(UserError, match="is not UTF-8"):
        TextFile(path=str(path)).documents("train")


@pytest.mark.parametrize("fractions", [(0.9, 0.05, 0.06), (1.0, 0.0, 0.0), (0.9, 0.2, -0.1)])
def test_fractions_that_do_not_add_up_are_refused(files: dict[str, str], fractions: tuple[float, ...]) -> None:
    with pytest.raises(
        UserError, match=r"dataset\.fractions must be three numbers above 0 that add to 1, got \("
    ) as error:
        TextFile(path=files["train"], fractions=fractions)  # type: ignore[arg-type]
    one_line(error)


def test_fractions_of_another_number_are_refused(files: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"dataset\.fractions must be"):
        build(DATASETS, {"name": "text_file", "path": files["train"], "fractions": (0.9, 0.1)}, where="dataset")


def test_a_missing_file_is_named_when_the_dataset_is_built(files: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"dataset\.valid: there is no file .*nowhere\.txt") as error:
        TextFiles(**files | {"valid": "nowhere.txt"})
    one_line(error)
    with pytest.raises(UserError, match=r"dataset\.path: there is no file"):
        TextFile(path="nowhere.txt")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        TextFile(path=str(tmp_path))


def test_an_empty_file_is_named(tmp_path: Path, files: dict[str, str]) -> None:
    (tmp_path / "empty.txt").touch()
    with pytest.raises(UserError, match=r"dataset\.train: .*empty\.txt is empty") as error:
        TextFiles(**files | {"train": str(tmp_path / "empty.txt")})
    one_line(error)
    (tmp_path / "blank.txt").write_text(" \n\n")
    with pytest.raises(UserError, match=r"blank\.txt is empty or only white space"):
        TextFiles(**files | {"train": str(tmp_path / "blank.txt")}).documents("train")
    with pytest.raises(UserError, match=r"dataset\.train names no file"):
        TextFiles(**files | {"train": ()})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "offset"), [(b"abc\xe9def", 3), (b"\xff\xfea\x00", 0), ("é".encode() * 500 + b"\xc3", 1000)]
)
def test_a_file_that_is_not_utf8_is_named_with_the_byte_offset(tmp_path: Path, data: bytes, offset: int) -> None:
    (tmp_path / "latin.txt").write_bytes(data)
    with pytest.raises(UserError, match=rf"latin\.txt is not UTF-8: byte 0x.. at byte offset {offset};") as error:
        TextFile(path=str(tmp_path / "latin.txt")).documents("train")
    one_line(error)


def test_a_file_too_short_for_its_fractions_is_named(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("abc")
    with pytest.raises(UserError, match=r"split 'valid' .* is empty"):
        TextFile(path=str(tmp_path / "short.txt")).documents("valid")


def test_names_that_do_not_exist_get_the_valid_ones(files: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"unknown split 'validation'; did you mean 'valid'"):
        TextFiles(**files).documents("validation")
    with pytest.raises(UserError, match=r"'shakespere'; did you mean 'shakespeare'"):
        build(DATASETS, {"name": "shakespere"}, where="dataset")
    with pytest.raises(UserError, match=r"'tinny'; did you mean 'tiny'\? valid: all, tiny"):
        build(DATASETS, {"name": "shakespeare", "part": "tinny"}, where="dataset")
