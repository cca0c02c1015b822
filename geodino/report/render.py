"""A template becomes a page: strict, escaped, its style inside."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_NONE: Mapping[str, Callable[..., Any]] = MappingProxyType({})


def rendered(
    template: str,
    *,
    package: str = "geodino.report",
    sheet: str = "style.css",
    filters: Mapping[str, Callable[..., Any]] = _NONE,
    **values: Any,
) -> str:
    """Return a page; the same values give the same text.

    Args:
        template: file among the package's templates.
        package: whose templates.
        sheet: the style sheet beside it, which the template names ``style``.
        filters: what the template calls filters, by name.
        values: what else the template names.
    """
    loader = PackageLoader(package)
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(filters)
    style = Markup(loader.get_source(environment, sheet)[0])  # noqa: S704  (our own file)
    return environment.get_template(template).render(style=style, **values)
