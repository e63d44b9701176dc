"""Datasets of TFDS: small ones, prepared by TFDS itself."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from lstm_research.common.build import build
from lstm_research.common.errors import UserError
from lstm_research.data.labelled_text import LABELLED_DATASETS
from lstm_research.data.parallel_text import PARALLEL_DATASETS
from lstm_research.data.prepared import quiet

SPLITS = ("train", "valid", "test")


def prepare(folder: Path, features: Any, splits: dict[str, list[dict[str, Any]]], file_format: str) -> None:
    class Toy(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="small")]  # noqa: RUF012
        name = "toy"
        url_infos = None

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
            return enumerate(splits[split])

    with quiet():
        Toy(data_dir=folder, config="small", file_format=file_format).download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a dataset of many features."""
    folder = tmp_path_factory.mktemp("tfds")
    features = tfds.features.FeaturesDict(
        {
            "text": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["no", "yes"]),
            "stars": tfds.features.Scalar(np.int64),
            "score": tfds.features.Scalar(np.float32),
            "topic": tfds.features.Text(),
            "pair": tfds.features.Translation(languages=["de", "en"]),
            "vector": tfds.features.Tensor(shape=(2,), dtype=np.float32),
        }
    )
    splits = {
        split: [
            {
                "text": f"{split} {number} é",
                "label": number % 2 if split != "test" else -1,
                "stars": [10, 9, 5][number % 3],
                "score": number / 2 if split != "test" else math.nan,
                "topic": "ab"[number % 2],
                "pair": {"de": f"Satz {number}", "en": f"Sentence {number}" if number else ""},
                "vector": np.zeros(2, np.float32),
            }
            for number in range(size)
        ]
        for split, size in {"train": 20, "validation": 5, "test": 4}.items()
    }
    prepare(folder, features, splits, "array_record")
    return str(folder)


def labelled(folder: str, **keys: Any) -> Any:
    return build(LABELLED_DATASETS, {"name": "tfds:toy/small", "data_dir": folder} | keys, where="dataset")


def translation(folder: str, **keys: Any) -> Any:
    spec = {"name": "tfds", "dataset": "toy/small", "data_dir": folder, "source": "pair/de", "target": "pair/en"}
    return build(PARALLEL_DATASETS, spec | keys, where="dataset")


def test_texts_and_class_labels(folder: str) -> None:
    dataset = labelled(folder, test="train[50%:]", train="train[:50%]")
    assert dataset.labels == ("no", "yes")
    assert dataset.examples("train") == [(f"train {number} é", number % 2) for number in range(10)]
    assert dataset.examples("valid") == [(f"validation {number} é", number % 2) for number in range(5)]
    assert dataset.examples("test") == [(f"train {number} é", number % 2) for number in range(10, 20)]
    assert dataset.describe() == "TFDS dataset toy/small"


def test_labels_of_other_features(folder: str) -> None:
    stars = labelled(folder, label_feature="stars")
    assert stars.labels == ("5", "9", "10")
    assert [label for _, label in stars.examples("test")] == [2, 1, 0, 2]
    topics = labelled(folder, label_feature="topic")
    assert topics.labels == ("a", "b")
    assert [label for _, label in topics.examples("valid")] == [0, 1, 0, 1, 0]
    scores = labelled(folder, label_feature="score")
    assert scores.labels is None
    assert [label for _, label in scores.examples("valid")] == [0.0, 0.5, 1.0, 1.5, 2.0]


def test_translations(folder: str) -> None:
    dataset = translation(folder)
    assert dataset.languages == ("pair/de", "pair/en")
    assert dataset.examples("train")[:2] == [("Satz 0", ("",)), ("Satz 1", ("Sentence 1",))]
    assert [len(dataset.examples(split)) for split in SPLITS] == [20, 5, 4]


WRONG = {
    "dataset 'toy/tiny' is not prepared": {"name": "tfds:toy/tiny"},
    "file_format='array_record').download_and_prepare()": {"name": "tfds:imdb_reviews"},
    "has no split 'dev'": {"valid": "dev"},
    "it has train, validation, test": {"valid": "dev"},
    "(dataset.text_feature): 'txet'; did you mean 'text'": {"text_feature": "txet"},
    "(dataset.label_feature): 'pair/fr'; valid: de, en": {"label_feature": "pair/fr"},
    "feature 'vector' of TFDS dataset 'toy/small' is no single value": {"label_feature": "vector"},
    "feature 'stars' of TFDS dataset 'toy/small' is no text": {"text_feature": "stars"},
    "dataset.test: split 'test' of TFDS dataset 'toy/small' has the label -1, which is none of no, yes": {},
    "dataset.test: example 0 of split 'test' of TFDS dataset 'toy/small' has the score nan": {"label_feature": "score"},
    "did you mean 'label_feature'": {"lable_feature": "a"},
    "unknown dataset.name 'tfsd:toy'": {"name": "tfsd:toy"},
}


def make_and_read(folder: str, **keys: Any) -> None:
    dataset = labelled(folder, **keys)
    for split in SPLITS:
        dataset.examples(split)


@pytest.mark.parametrize("part", WRONG)
def test_wrong_keys_get_one_line(part: str, folder: str) -> None:
    with pytest.raises(UserError) as error:
        make_and_read(folder, **WRONG[part])
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_other_files_than_array_record_are_refused(tmp_path: Path) -> None:
    # The library reads parquet without complaint, and loses examples.
    features = tfds.features.FeaturesDict({"text": tfds.features.Text(), "label": tfds.features.Scalar(np.int64)})
    prepare(tmp_path, features, {"train": [{"text": "a", "label": 0}]}, "array_record")
    information = next(tmp_path.rglob("dataset_info.json"))
    information.write_text(information.read_text().replace("array_record", "parquet"))
    with pytest.raises(UserError, match=r"prepared in files of format parquet; prepare it with"):
        labelled(str(tmp_path)).examples("train")
