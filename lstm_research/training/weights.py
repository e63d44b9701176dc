"""Weights as one safetensors file: dotted names, a digest that is verified, never half-written."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from lstm_research.common.errors import UserError
from lstm_research.training.files import write_atomically

_DIGEST = "sha256"


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """Returns the leaves of `tree` by dotted name, such as `stack.layer_0.input_kernel`, in the tree's order.

    Raises:
      ValueError: two leaves would get the same name.
    """
    leaves: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if name in leaves:
            raise ValueError(f"two leaves are called {name!r}; a key must not hold a dot")
        leaves[name] = leaf
    return leaves


def fill(template: PyTree, leaves: Mapping[str, Any]) -> PyTree:
    """Returns a tree with the structure of `template` and the leaves of the same names."""
    structure = jax.tree_util.tree_structure(template)
    return jax.tree_util.tree_unflatten(structure, [leaves[name] for name in named_leaves(template)])


def content_digest(arrays: Mapping[str, np.ndarray], note: str = "") -> str:
    """Returns the sha256 over names, types, shapes and bytes of `arrays`, in the order of names, and over `note`."""
    digest = hashlib.sha256(note.encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        digest.update(json.dumps([name, array.dtype.name, array.shape]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def mismatch(expected: Mapping[str, str], found: Mapping[str, str]) -> str | None:
    """Says in half a line how two tables of leaf descriptions (`float32[4, 8]`) differ, or returns None."""
    for name in expected:
        if name not in found:
            return f"{name} is missing there"
        if found[name] != expected[name]:
            return f"{name} is {found[name]} there and {expected[name]} here"
    for name in found:
        if name not in expected:
            return f"{name} there is unknown here"
    return None


def describe(array: Any) -> str:
    """Returns type and shape of an array as `float32[4, 8]`."""
    return f"{array.dtype}{list(array.shape)}"


def save_weights(path: Path, params: PyTree, metadata: Mapping[str, str]) -> None:
    """Writes `params` to one safetensors file, atomically.

    Args:
      path: the file.
      params: a tree of arrays; each is stored under its dotted name.
      metadata: text values stored in the file's header (the digest of the content is added).
    """
    # safetensors stores the buffer as it lies in memory, so a transposed view would come back scrambled.
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in named_leaves(jax.device_get(params)).items()}
    header = {**metadata, _DIGEST: content_digest(arrays, _note(metadata))}
    write_atomically(path, _with_sorted_metadata(save(arrays, metadata=header)))


def load_weights(path: Path, template: PyTree | None = None) -> tuple[PyTree, dict[str, str]]:
    """Reads a file of `save_weights` and verifies its digest.

    Args:
      path: the file.
      template: a tree of arrays with the wanted structure; None gives nested dicts after the dotted names.

    Returns:
      The weights as NumPy arrays, and the metadata they were saved with.

    Raises:
      UserError: the file is missing or damaged, or does not fit the template.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"no weights at {path}; train writes them at the first evaluation") from None
    metadata = _metadata(path, data)
    try:
        arrays = {name: _to_array(entry) for name, entry in deserialize(data)}
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({_first_line(error)}); restore it from a copy or train again") from error
    digest = metadata.pop(_DIGEST, None)
    if digest is None:
        raise UserError(f"{path} holds no digest: it was not written by lstm_research")
    if digest != content_digest(arrays, _note(metadata)):
        raise UserError(f"{path} is damaged (its content does not match its digest); restore a copy or train again")
    if template is None:
        return _nested(arrays), metadata
    expected = {name: describe(leaf) for name, leaf in named_leaves(template).items()}
    difference = mismatch(expected, {name: describe(array) for name, array in arrays.items()})
    if difference:
        raise UserError(f"{path} does not fit the model of this config: {difference}")
    return fill(template, arrays), metadata


def _to_array(entry: Mapping[str, Any]) -> np.ndarray:
    """Makes an array of a deserialised entry; the library's own loader for NumPy knows no bfloat16."""
    code = entry["dtype"]
    kinds = {"F": "float", "BF": "bfloat", "I": "int", "U": "uint", "C": "complex"}
    letters = code.rstrip("0123456789")
    dtype = jnp.dtype(bool) if code == "BOOL" else jnp.dtype(kinds[letters] + code[len(letters) :])
    return np.frombuffer(bytes(entry["data"]), dtype).reshape(entry["shape"])


def _with_sorted_metadata(data: bytes) -> bytes:
    """Returns the same safetensors file with its metadata in the order of keys.

    The library writes them in an order that changes from call to call; equal weights are to give equal bytes.
    """
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format wants the arrays at a multiple of 8
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _metadata(path: Path, data: bytes) -> dict[str, str]:
    """Reads the text values of a safetensors header (8 bytes of length, then JSON)."""
    try:
        length = int.from_bytes(data[:8], "little")
        return dict(json.loads(data[8 : 8 + length]).get("__metadata__", {}))
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is damaged (unreadable header); restore it from a copy or train again") from error


def _note(metadata: Mapping[str, str]) -> str:
    return json.dumps(dict(metadata), sort_keys=True)


def _nested(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *groups, last = name.split(".")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = array
    return tree


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
