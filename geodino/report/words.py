"""Numbers as people write them."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime


def number(value: float) -> str:
    """Return a number in as few characters as three digits need; large ones with separators."""
    if not math.isfinite(value):
        return "not finite"
    size = abs(value)
    if size >= 10_000 or (size >= 100 and float(value).is_integer()):
        return f"{value:,.0f}"
    if size and size < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    if size >= 100:
        return f"{value:,.1f}"
    return f"{value:.3g}"


def tick(value: float, spacing: float) -> str:
    """Return a number on an axis, with as many decimals as its neighbours differ in."""
    if value == 0:
        return "0"
    if abs(value) >= 100_000 or spacing < 1e-4:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:,.{max(0, -math.floor(math.log10(spacing * (1 + 1e-9))))}f}"


def percent(share: float) -> str:
    """Return a share in per cent; neither 0 nor 100 unless it is."""
    if share in (0.0, 1.0):
        return f"{100 * share:.0f} %"
    if share < 0.001:
        return "under 0.1 %"
    return "over 99.9 %" if share > 0.999 else f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Return a length of time in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((i for i, (n, _) in enumerate(parts) if n), 3)
    shown = [f"{n} {unit}" for n, unit in parts[first : first + 2] if n]
    return " ".join(shown) or "under 1 s"


def moment(seconds: float) -> str:
    """Return a time (seconds since 1970) to the minute, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def interval(low: str, high: str) -> str:
    """Return ``low to high``, or one of them where they are the same."""
    return low if low == high else f"{low} to {high}"


def count(n: int, thing: str) -> str:
    """Return ``1 tile`` or ``2 tiles``."""
    return f"{n:,} {thing}" + ("" if n == 1 else "s")


def first_of(texts: Sequence[str], *, most: int = 3) -> str:
    """Join the first few of many sentences, and say how many more there are."""
    more = f" (and {len(texts) - most} more)" if len(texts) > most else ""
    return " ".join(texts[:most]) + more
