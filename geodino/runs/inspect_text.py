"""An inspection as text for a terminal: facts, tables, questions."""

import textwrap
from collections.abc import Iterable, Sequence

from geodino.data.inspection import Inspection, Kind, Question
from geodino.runs.inspect_words import (
    BANDS,
    COLUMNS,
    Fact,
    band_rows,
    headline,
    kind_facts,
    plural,
    source_facts,
)

WIDTH = 100
"""Characters of a line, where a line can be broken."""

_TEXT_COLUMNS = 3
"""Columns of the band table that hold words; numbers are aligned to the right."""


def as_text(found: Inspection) -> str:
    """Return the whole inspection."""
    parts = [f"{found.source}: {headline(found)}", *_facts(source_facts(found))]
    for kind in found.kinds:
        parts += ["", *_kind(kind, found.root)]
    asked = found.all_questions
    if asked:
        how = "in a descriptor (--write-descriptor FOLDER drafts one) or with --set"
        parts += ["", f"{plural(len(asked), 'question')}, to be answered {how}:"]
        parts += _questions(found, asked)
    return "\n".join(parts)


def _kind(kind: Kind, root: str) -> list[str]:
    lines = [kind.name, *_facts(kind_facts(kind, root)), ""]
    lines += _table([COLUMNS, *band_rows(kind.bands)])
    if len(kind.bands) > BANDS:
        lines.append(f"  ... and more of {len(kind.bands)} bands (--json has all)")
    lines += [""] * bool(kind.decisions)
    for sentence in kind.decisions:
        lines += textwrap.wrap(sentence, WIDTH, initial_indent="  * ", subsequent_indent="    ")
    return lines


def _questions(found: Inspection, asked: Sequence[Question]) -> list[str]:
    """Lay questions out by topic: why they matter once, the shortest answer for each."""
    names = {id(q): kind.name for kind in found.kinds for q in kind.questions}
    lines, number = [], 0
    for topic, why in dict.fromkeys((q.topic, q.why) for q in asked):
        lines.append("")
        for question in asked:
            if (question.topic, question.why) != (topic, why):
                continue
            number += 1
            name = names.get(id(question)) if len(found.kinds) > 1 else None
            head = f"  {number:>2}. " + (f"[{name}] " if name else "")
            lines += _wrapped(question.text, head, 6)
            answer = question.option or question.descriptor
            if answer:
                lines += textwrap.indent(answer, " " * 10).split("\n")
        lines += _wrapped(why, "      Why: ", 6)
    return lines


def _wrapped(text: str, head: str, indent: int) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=head,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _facts(facts: Iterable[Fact]) -> list[str]:
    pairs = list(facts)
    width = max((len(name) for name, _ in pairs), default=0)
    lines = []
    for name, text in pairs:
        head, rest = f"  {name:<{width}}  ", " " * (width + 4)
        for line in text.split("\n"):
            is_command = line.startswith("  ")
            lines += [head + line] if is_command else _wrapped(line, head, width + 4)
            head = rest
    return lines


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    used = [i for i, column in enumerate(zip(*rows[1:], strict=True)) if any(column)]
    return [
        "  " + "  ".join(
            f"{row[i]:<{widths[i]}}" if i < _TEXT_COLUMNS else f"{row[i]:>{widths[i]}}" for i in used
        ).rstrip()
        for row in rows
    ]  # fmt: skip


def _indented(text: str, by: int) -> list[str]:
    return textwrap.indent(text, " " * by).split("\n")
