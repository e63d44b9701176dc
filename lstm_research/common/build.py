"""Objects from config: one function for every part that a config names."""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lstm_research.common.errors import UserError, unknown


def build(
    table: Mapping[str, Callable[..., Any]],
    spec: Mapping[str, Any],
    *,
    where: str,
    parts: Mapping[str, Mapping[str, Callable[..., Any]] | Callable[..., Any]] | None = None,
    **extra: Any,
) -> Any:
    """Builds the object that `spec` describes.

    Args:
      table: constructors by name.
      spec: `name` picks the constructor; every other key is one of its keyword arguments.
      where: the dotted config path of `spec`, for messages.
      parts: for keys that hold a config of their own: the table it is built from, or its constructor if there is only
        one and the config therefore has no `name`.
      **extra: further keyword arguments that come from code and not from the config.

    Returns:
      `table[spec["name"]](**spec_without_name, **extra)`.

    Raises:
      UserError: unknown name, unknown or missing key, or a value of the wrong type.
    """
    keywords = _as_keywords(spec, where)
    if "name" not in keywords:
        raise UserError(f"{where}.name is missing; valid: {', '.join(sorted(table))}")
    name = keywords.pop("name")
    if not isinstance(name, str) or name not in table:
        raise unknown(f"{where}.name", name, table)
    constructor = table[name]
    for key, part in (parts or {}).items():
        if keywords.get(key) is not None:
            keywords[key] = _build_part(part, keywords[key], f"{where}.{key}")
    check_keywords(constructor, keywords, where=where, what=f"{name!r}", given_by_code=extra)
    try:
        return constructor(**keywords, **extra)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _build_part(part: Any, spec: Any, where: str) -> Any:
    """Builds the value of one key, see `parts` of `build`."""
    if isinstance(part, Mapping):
        return build(part, spec, where=where)
    return build_section(part, spec, where=where)


def build_section(constructor: Callable[..., Any], section: Any, *, where: str) -> Any:
    """Builds what a section of a config describes that has no `name`, because there is only one constructor for it."""
    keywords = _as_keywords(section, where)
    check_keywords(constructor, keywords, where=where, what="the section")
    return constructor(**keywords)


def _as_keywords(spec: Any, where: str) -> dict[str, Any]:
    if not hasattr(spec, "keys"):
        raise UserError(f"{where} must be a group of keys, got {type(spec).__name__} {spec!r}")
    return {str(key): spec[key] for key in spec}


def check_keywords(
    constructor: Callable[..., Any] | Sequence[Callable[..., Any]],
    keywords: Mapping[str, Any],
    *,
    where: str,
    what: str,
    given_by_code: Mapping[str, Any] | None = None,
) -> None:
    """Raises a `UserError` unless `keywords` are exactly what `constructor` takes from a config.

    Args:
      constructor: a class or function with annotated keyword arguments; or several, that share the keywords.
      keywords: values from the config.
      where: the dotted config path, for messages.
      what: the name of the thing that is built, for messages.
      given_by_code: arguments that the config must not set.
    """
    bound = {"self", *(given_by_code or {})}
    parameters: dict[str, inspect.Parameter] = {}
    hints: dict[str, Any] = {}
    for each in constructor if isinstance(constructor, Sequence) else [constructor]:
        function = each
        if isinstance(each, functools.partial):
            function, bound = each.func, bound | set(each.keywords)
        if inspect.isclass(function):  # a metaclass (that of Flax modules) may hide the signature
            function = function.__init__
        parameters |= inspect.signature(function).parameters
        hints |= typing.get_type_hints(function)
    parameters = {
        key: parameter
        for key, parameter in parameters.items()
        if key not in bound and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    for key, value in keywords.items():
        if key not in parameters:
            raise unknown(f"config key {where}.{key} of {what}:", key, parameters)
        if key in hints and not _fits(value, hints[key]):
            raise UserError(f"{where}.{key} must be {_describe(hints[key])}, got {type(value).__name__} {value!r}")
    missing = [key for key, p in parameters.items() if p.default is inspect.Parameter.empty and key not in keywords]
    if missing:
        raise UserError(f"{where}.{missing[0]} is missing; {what} needs {', '.join(missing)}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a config value may be passed where `hint` is annotated; hints other than plain data always fit."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin is tuple:
        arguments = typing.get_args(hint)
        if not isinstance(value, tuple | list):
            return False
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return all(_fits(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    if hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    return True


def _describe(hint: Any) -> str:
    """Names a type hint for a message: `int`, `str or None`, `one of 'a', 'b'`."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(option) for option in typing.get_args(hint))
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    if hint is type(None):
        return "None"
    return getattr(hint, "__name__", str(hint)) if origin is None else str(hint)
