"""The base of every config: strict, frozen, documented under each field, honest about mistakes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from geodino.errors import RecipeError, suggest

C = TypeVar("C", bound="Config")
"""A config class. Not ``Self``: the shape checker of the tests decorates methods one by one."""


class Config(BaseModel):
    """Base of all configs: unknown keys are errors, values cannot change, strings document fields.

    Each owner keeps its config class beside its class; defaults live only there. The string under
    a field is its documentation, shown by ``geodino recipes explain``.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    @classmethod
    def parse(cls: type[C], values: Mapping[str, Any], *, source: str) -> C:
        """Validate ``values``; every mistake comes in one message with its cure.

        Raises:
            RecipeError: naming ``source`` and each wrong key with the nearest known one.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise RecipeError(_explain_mistakes(cls, error, source)) from None


def fields(config: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every leaf key of a config tree as ``("train.batch", field)``, depth first."""
    for name, field in config.model_fields.items():
        inner = _configs_in(field.annotation)
        if inner and not _is_mapping(field.annotation):
            for nested in inner:
                yield from fields(nested, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Turn ``["train.batch=32", ...]`` into nested values, each read as YAML."""
    import yaml

    values: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise RecipeError(f"--set {override!r}: expected key.path=value, e.g. train.batch=32.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise RecipeError(f"--set {override!r}: the value is not valid YAML.") from None
        if isinstance(value, str):
            value = number(value)
        for part in reversed(key.split(".")):
            value = {part: value}
        values = merged(values, value)
    return values


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``over`` laid on top, mapping by mapping."""
    out = dict(base)
    for key, value in over.items():
        below = out.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        out[key] = merged(dict(below or {}), value) if both else value
    return out


def number(text: str) -> str | float:
    """Return the number a text such as ``1e-3`` means, which YAML 1.1 reads as text; else the text."""
    try:
        return float(text) if "e" in text.lower() and text[:1] in "-+.0123456789" else text
    except ValueError:
        return text


def _configs_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [c for arg in get_args(annotation) for c in _configs_in(arg)]


def _is_mapping(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) in (dict, Mapping)


def _explain_mistakes(cls: type[BaseModel], error: ValidationError, source: str) -> str:
    lines = []
    for mistake in error.errors():
        where = ".".join(str(part) for part in mistake["loc"]) or "recipe"
        if mistake["type"] == "extra_forbidden":
            known = _siblings(cls, mistake["loc"][:-1])
            lines.append(f"{where}: unknown key.{suggest(str(mistake['loc'][-1]), known)}")
        else:
            message = mistake["msg"].removeprefix("Value error, ")
            found = "" if isinstance(mistake["input"], dict) else f" (found {mistake['input']!r})"
            lines.append(f"{where}: {message}{found}.")
    count = f"{len(lines)} thing{'s' if len(lines) > 1 else ''} to fix"
    body = "\n".join(f"  {line}" for line in lines)
    return (
        f"{source} cannot run; {count}:\n{body}\n"
        "`geodino recipes explain` lists every key with its meaning and default."
    )


def _siblings(cls: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Names allowed beside an unknown key: those of the config (or configs) at ``path``."""
    level = [cls]
    for part in path:
        nested = [
            inner
            for config in level
            for name, field in config.model_fields.items()
            if name == part
            for inner in _configs_in(field.annotation)
        ]
        level = nested or level
    return [name for config in level for name in config.model_fields]
