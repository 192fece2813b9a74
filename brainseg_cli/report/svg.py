"""A few words of SVG: elements with everything escaped, and a frame that turns numbers into places."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

INK = "var(--ink, #1c1f23)"
MUTED = "var(--muted, #59616b)"
RULE = "var(--rule, #d7dbe0)"


def element(tag: str, *children: Markup | str, **attributes: str | float) -> Markup:
    """`<tag ...>children</tag>`; text and values are escaped, `stroke_width` is stroke-width, `class_` is class."""
    told = Markup("").join(
        Markup(' {}="{}"').format(_attribute_name(name), f"{value:.6g}" if isinstance(value, float) else value)
        for name, value in attributes.items()
    )
    inner = Markup("").join(escape(child) for child in children)
    return Markup(f"<{tag}{told}>{inner}</{tag}>" if children else f"<{tag}{told}/>")


def label(text: str, x: float, y: float, *, anchor: str = "middle", fill: str = INK, **more: str | float) -> Markup:
    """A line of text, its baseline at `y`."""
    return element("text", text, x=x, y=y, text_anchor=anchor, fill=fill, **more)


def drawing(width: float, height: float, about: str, *children: Markup) -> Markup:
    """A whole chart; `about` is read out where it cannot be seen."""
    return element(
        "svg",
        *children,
        xmlns="http://www.w3.org/2000/svg",
        class_="chart",
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=about,
        font_family="system-ui, sans-serif",
        font_size=13,
    )


@dataclass(frozen=True)
class Frame:
    """A rectangle of px and the numbers its sides stand for."""

    left: float
    right: float
    top: float
    bottom: float
    x_range: tuple[float, float]
    y_range: tuple[float, float] = (0.0, 1.0)

    def x(self, value: float) -> float:
        """Where `value` is from the left, in px."""
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Where `value` is from the top, in px; greater is higher."""
        low, high = self.y_range
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    def path(self, points: Sequence[tuple[float, float]]) -> str:
        """Path data of a line through points."""
        return "M" + "L".join(f"{self.x(x):.2f} {self.y(y):.2f}" for x, y in points)

    def x_axis(self, title: str, ticks: Sequence[float]) -> list[Markup]:
        """The lower side with its ticks and title."""
        marks = [
            element("line", x1=self.left, x2=self.right, y1=self.bottom, y2=self.bottom, stroke=MUTED),
            label(title, (self.left + self.right) / 2, self.bottom + 38, fill=MUTED),
        ]
        for tick in ticks:
            at = self.x(tick)
            marks.append(element("line", x1=at, x2=at, y1=self.bottom, y2=self.bottom + 5, stroke=MUTED))
            marks.append(label(_tell(tick, ticks), at, self.bottom + 20, fill=MUTED))
        return marks

    def y_axis(self, title: str, ticks: Sequence[float]) -> list[Markup]:
        """Rules across, numbered on the left; the title stands above them."""
        marks = [label(title, self.left, self.top - 12, anchor="start", fill=MUTED)]
        for tick in ticks:
            at = self.y(tick)
            marks.append(element("line", x1=self.left, x2=self.right, y1=at, y2=at, stroke=RULE))
            marks.append(label(_tell(tick, ticks), self.left - 8, at + 4.5, anchor="end", fill=MUTED))
        return marks


def choose_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers in [low, high], which is not empty."""
    step = 10.0 ** math.floor(math.log10((high - low) / count))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 1.5 * count)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def _tell(tick: float, ticks: Sequence[float]) -> str:
    """All ticks of an axis with the same number of decimals."""
    decimals = max(len(f"{other:.6g}".partition(".")[2]) for other in ticks)
    return f"{tick:.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def _attribute_name(name: str) -> str:
    # SVG has names in camel case (viewBox) and with dashes (stroke-width), none with underscores
    return name.rstrip("_").replace("_", "-")
