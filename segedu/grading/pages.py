"""HTML pages that cannot do anything: no script, nothing from outside, one file each.

A page's content-security policy allows its own style sheet, by its digest, and pictures that stand
in the page itself. Every value is escaped by the template, and unseen characters become visible.
"""

import base64
import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import BaseLoader, Environment, StrictUndefined, TemplateNotFound
from markupsafe import Markup

from segedu.files import whole_file
from segedu.grading.tables import seen

TEMPLATES = files("segedu.grading") / "templates"


class _Loader(BaseLoader):
    """Reads the templates that come with the package."""

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Any]:  # noqa: ARG002
        source = TEMPLATES / template
        if not source.is_file():
            raise TemplateNotFound(template)
        return source.read_text(encoding="utf-8"), template, lambda: True


@cache
def environment() -> Environment:
    """Templates in which every value is escaped, and one that is missing is an error."""
    made = Environment(
        loader=_Loader(),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    made.filters["marks"] = marks_text
    made.filters["zip"] = zip
    return made


def page(template: str, style: str, **values: Any) -> str:
    """A page of a template, with its style sheet and the policy that allows that alone."""
    return (
        environment()
        .get_template(template)
        .render(
            style=Markup(style),
            policy=policy(style),
            **values,
        )
    )


def policy(style: str) -> str:
    """The content-security policy of a page with that style sheet."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )


def style_sheet(*names: str) -> str:
    """Style sheets that come with the package, one after the other."""
    return "\n".join((TEMPLATES / name).read_text(encoding="utf-8").strip() for name in names)


def marks_text(marks: float | None) -> str:
    """Marks as a page has them; a question mark if nobody knows them.

    Example:
        >>> marks_text(2.50), marks_text(None)
        ('2.5', '?')
    """
    return "?" if marks is None else f"{round(marks, 2):g}"


def write_page(text: str, path: Path) -> Path:
    """Write a page whole; returns its path."""
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return path


def _shown(value: Any) -> Any:
    """What a template shows of a value: text without anything unseen."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return seen(value)
    return value
