"""`lstm-research predict`, over characters and over words."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROMPT = "--prompt=to be "


def written(command: Any, workdir: str, *arguments: str) -> str:
    """Returns what is written after the prompt, without the newline at the end."""
    result = command("predict", f"--workdir={workdir}", PROMPT, "--length=40", *arguments)
    assert result.code == 0, result.err
    assert result.err == ""
    assert result.out.startswith("to be ")
    assert result.out.endswith("\n")
    return result.out.removeprefix("to be ")[:-1]


def test_the_seed_alone_decides(command: Any, characters: str) -> None:
    first = written(command, characters, "--seed=3")
    assert len(first) == 40
    assert written(command, characters, "--seed=3") == first
    assert written(command, characters, "--seed=4") != first
    assert written(command, characters) == written(command, characters, "--seed=0")


def test_a_longer_text_begins_the_same(command: Any, characters: str) -> None:
    assert written(command, characters, "--length=50")[:40] == written(command, characters)


def test_temperature_0_is_greedy(command: Any, characters: str) -> None:
    greedy = written(command, characters, "--temperature=0", "--seed=1")
    assert written(command, characters, "--temperature=0", "--seed=2") == greedy
    assert written(command, characters, "--top_k=1", "--seed=1") == greedy
    assert written(command, characters, "--top_p=1e-6", "--seed=1") == greedy


def test_restrictions_change_the_text(command: Any, characters: str) -> None:
    texts = [written(command, characters, *arguments) for arguments in
             ([], ["--temperature=3"], ["--top_k=2"], ["--top_p=0.3"], ["--checkpoint=4"])]  # fmt: skip
    assert len(set(texts)) == len(texts)
    assert len(set(texts[2])) < len(set(texts[1]))


def test_several_samples(command: Any, characters: str) -> None:
    result = command("predict", f"--workdir={characters}", PROMPT, "--length=20", "--num_samples=3")
    assert result.code == 0, result.err
    for number in (1, 2, 3):
        assert f"--- sample {number} of 3 ---\nto be " in result.out
    texts = result.out.split("--- sample ")[1:]
    assert len({text.split("---\n")[1] for text in texts}) == 3


def test_words(command: Any, words: str) -> None:
    result = command("predict", f"--workdir={words}", "--prompt=to be", "--length=12")
    assert result.code == 0, result.err
    assert result.out.startswith("to be ")
    vocabulary = {"to", "be", "or", "not", "that", "is", "the", "question", "<unk>"}
    assert set(result.out.split()) <= vocabulary
    # Without a prompt a text begins at a new line.
    assert command("predict", f"--workdir={words}", "--length=5").out.startswith("\n")


def test_needs_no_data(command: Any, trained: Path, project: Path) -> None:
    shutil.copytree(trained / "runs" / "characters", project / "elsewhere")
    for file in project.glob("*.txt"):
        file.unlink()
    assert len(written(command, "elsewhere")) == 40


WRONG = {
    "--prompt=to bé x": "characters outside the vocabulary: 'é', 'x'",
    "--prompt=": "the prompt is empty",
    "--prompt=\udcff": "'\\udcff'",
    "--length=0": "--length=0: 0 is not a positive integer",
    "--length=many": "length",
    "--num_samples=0": "--num_samples=0: 0 is not a positive integer",
    "--temperature=-1": "temperature must be at least 0",
    "--temperature=nan": "temperature must be at least 0",
    "--top_k=0": "top_k must be at least 1",
    "--top_p=0": "top_p must be above 0",
    "--top_p=1.5": "at most 1",
    "--seed=-1": "seed",
    "--seed=99999999999999999999": "seed",
    "--promt=x": "prompt",
    "to be": "takes only flags",
}


@pytest.mark.parametrize("argument", WRONG)
def test_refuses(argument: str, command: Any, characters: str) -> None:
    result = command("predict", f"--workdir={characters}", PROMPT, argument)
    assert result.code == 2
    assert result.out == ""
    assert result.err.count("\n") == 1
    assert WRONG[argument] in result.err


def test_refuses_unknown_words(command: Any, words: str) -> None:
    result = command("predict", f"--workdir={words}", "--prompt=to bee or wasp")
    assert (result.code, result.out) == (2, "")
    assert "words outside the vocabulary: 'bee', 'wasp'" in result.err


def test_refuses_a_workdir_without_vocabulary(refused: Callable[..., str], trained: Path, project: Path) -> None:
    shutil.copytree(trained / "runs" / "characters", project / "runs")
    (project / "runs" / "vocabulary.json").unlink()
    assert "vocabulary.json is missing" in refused("predict", "--workdir=runs")


@pytest.mark.parametrize("flag", ["--beam_size=3", "--text=to be", "--attention_html=page.html"])
def test_a_flag_of_another_task_is_refused(flag, characters, command):
    result = command("predict", f"--workdir={characters}", flag)
    assert result.code == 2
    name = flag.partition("=")[0]
    assert f"{name} means nothing to the task 'language_modelling' of this run; leave it out" in result.err


def test_a_text_goes_to_a_file(characters, command, tmp_path):
    arguments = ["predict", f"--workdir={characters}", "--prompt=to be", "--length=9"]
    shown = command(*arguments).out
    result = command(*arguments, f"--output={tmp_path / 'text.txt'}")
    assert (result.code, result.out) == (0, "")
    assert (tmp_path / "text.txt").read_text() == shown
    both = command(*arguments, "--num_samples=2", f"--output={tmp_path / 'texts.txt'}")
    assert both.code == 0
    assert (tmp_path / "texts.txt").read_text().startswith("--- sample 1 of 2 ---\nto be")


def test_a_prompt_from_a_file_and_a_text_to_a_file(command: Any, trained: Path, project: Path) -> None:
    shutil.copytree(trained / "runs" / "characters", project / "runs")
    (project / "prompt.txt").write_text("to be ")
    arguments = ("predict", "--workdir=runs", "--length=40", "--output=text.txt")
    result = command(*arguments, "--input=prompt.txt")
    assert (result.code, result.out, result.err) == (0, "", "")
    assert (project / "text.txt").read_text() == "to be " + written(command, "runs") + "\n"
    refused = command(*arguments, "--input=prompt.txt", PROMPT)
    assert refused.code == 2
    assert "--prompt and --input" in refused.err
