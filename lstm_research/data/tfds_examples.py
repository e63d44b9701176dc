"""Any dataset of the TFDS catalogue, or of one's own, that is prepared in array_record files."""

import functools
import operator
from typing import Any

import numpy as np

from lstm_research.common.errors import UserError, unknown
from lstm_research.data.prepared import plain, quiet, read_all


class TFDSReader:
    """The examples of a prepared TFDS dataset.

    Args:
      dataset: its name as TFDS has it: `name`, `name/config` or `name/config:version`.
      data_dir: the folder of prepared datasets; None: that of TFDS.

    Raises:
      UserError: it is not there, or prepared in other files than array_record.
    """

    def __init__(self, dataset: str, data_dir: str | None) -> None:
        import tensorflow_datasets as tfds  # loaded only where it is used

        self.dataset = dataset
        self._rows: dict[str, list[tuple[Any, ...]]] = {}
        place = f", data_dir={data_dir!r}" if data_dir else ""
        prepare = (
            "prepare it with: import tensorflow_datasets as tfds; "
            f"tfds.builder({dataset!r}{place}, file_format='array_record').download_and_prepare()"
        )
        try:
            with quiet():
                self._builder = tfds.core.read_only_builder.builder_from_files(dataset, data_dir=data_dir)
        except Exception as error:
            where = data_dir or "TFDS's own folder"
            raise UserError(
                f"TFDS dataset {dataset!r} is not prepared in {where} (dataset.data_dir); {prepare}"
            ) from error
        if (found := self._builder.info.file_format.value) != "array_record":
            raise UserError(f"TFDS dataset {dataset!r} is prepared in files of format {found}; {prepare}")

    def feature(self, path: str, key: str, *, text: bool) -> Any:
        """Returns a TFDS feature of which an example has one value.

        Args:
          path: its name, or the names that lead to it, as in `translation/en`.
          key: the config key that names it.
          text: whether it must be a text.

        Raises:
          UserError: there is no such feature.
        """
        feature = self._builder.info.features
        for name in path.split("/"):
            names = list(feature.keys()) if hasattr(feature, "keys") else []
            if name not in names:
                raise unknown(f"feature of TFDS dataset {self.dataset!r} (dataset.{key}):", path, names)
            feature = feature[name]
        if getattr(feature, "shape", None) != () or (text and np.dtype(feature.np_dtype) != object):
            raise UserError(
                f"dataset.{key}: feature {path!r} of TFDS dataset {self.dataset!r} is no "
                f"{'text' if text else 'single value'} but {type(feature).__name__}"
            )
        return feature

    def rows(self, split: str, key: str, paths: tuple[str, ...]) -> list[tuple[Any, ...]]:
        """Returns the values of features, in Python's own types, of every example of a split; read once.

        Args:
          split: as TFDS has it, as in "validation" or "train[:10%]".
          key: the config key that names it.
          paths: of the features.

        Raises:
          UserError: there is no such split.
        """
        if split not in self._rows:
            try:
                with quiet():
                    source = self._builder.as_data_source(split=split)
            except Exception as error:
                reason = " ".join(str(error).split())[:120]
                raise UserError(
                    f"dataset.{key}: TFDS dataset {self.dataset!r} has no split {split!r} ({reason}); "
                    f"it has {', '.join(self._builder.info.splits)}"
                ) from error
            self._rows[split] = [
                tuple(plain(functools.reduce(operator.getitem, path.split("/"), example)) for path in paths)
                for example in read_all(source)
            ]
        return self._rows[split]


class DatasetTable(dict[str, Any]):
    """Constructors of datasets by name, where `tfds:NAME` is `tfds` with its argument `dataset`."""

    def __contains__(self, name: object) -> bool:
        first, colon, _ = str(name).partition(":")
        return super().__contains__("tfds" if first == "tfds" and colon else name)

    def __getitem__(self, name: str) -> Any:
        if name.startswith("tfds:"):
            return functools.partial(super().__getitem__("tfds"), dataset=name.removeprefix("tfds:"))
        return super().__getitem__(name)
