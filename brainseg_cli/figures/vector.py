"""The same figure for print: SVG or PDF with real text, outlines as paths, and the slice's own pixels."""

import io
import threading
import warnings
from collections import Counter, defaultdict
from typing import Any, Literal, get_args

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from brainseg_cli.errors import UsageError
from brainseg_cli.figures.caption import PAPER_COLOUR, TEXT_COLOUR, Caption
from brainseg_cli.figures.overlay import caption_below, dash_of
from brainseg_cli.figures.scene import ALPHA, HALO_COLOUR, MIN_SIDE_PX, Colour, Mark, Scale, Scene, build_scene
from brainseg_cli.types import Image, Mask, Style

VectorFormat = Literal["svg", "pdf"]
Point = tuple[int, int]
Edge = tuple[Point, Point]

DPI = 96  # of a CSS pixel, so that SVG viewers show the figure as large as its PNG
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "text.usetex": False,
    "text.parse_math": False,
    "lines.scale_dashes": True,
    "path.simplify": False,
    "savefig.bbox": None,
    "savefig.facecolor": "auto",
    "svg.fonttype": "none",
    "svg.hashsalt": "brainseg",  # names of clip paths: else drawn at random
    "svg.image_inline": True,
    "pdf.fonttype": 42,
}
_LOCK = threading.Lock()  # matplotlib's settings are one for all threads


def draw_vector(
    image: Image,
    prediction: Mask | None,
    reference: Mask | None = None,
    *,
    figure_format: VectorFormat,
    style: Style = "contour",
    alpha: float = ALPHA,
    channel: int | None = None,
    zoom: bool = False,
    title: str = "",
    legend: bool = True,
    min_side: int = MIN_SIDE_PX,
) -> bytes:
    """The figure that `draw_overlay` draws, as the bytes of an SVG or a PDF file.

    Arguments and errors are those of `draw_overlay`; a pixel there is 1/96 inch here, so a slice of up to 640
    px is 6.7 inches wide. The slice is embedded with its own pixels, tinted as the style has it, to be shown
    without smoothing; outlines are paths along pixel edges; title and legend are text, in DejaVu Sans: a PDF
    carries the font, an SVG names it. Equal arguments, equal bytes. UsageError for another format.
    """
    if figure_format not in get_args(VectorFormat):
        raise UsageError(f"there is no vector format {figure_format}", hint=", ".join(get_args(VectorFormat)))
    scene = build_scene(image, prediction, reference, style=style, alpha=alpha, channel=channel, zoom=zoom)
    scale = scene.scale(min_side)
    rows, columns = (n * scale.factor + 2 * scale.frame_px for n in scene.slice.shape[:2])
    caption = caption_below((rows, columns), scene, scale, title, legend=legend)
    width, height = caption.width, rows + caption.height
    left = (width - columns) // 2

    with _LOCK, matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # a title in a script that the font lacks is drawn as boxes, and that is all there is to say
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=_rgb(PAPER_COLOUR))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
        # the frame lies below the slice, which lies below every line
        axes.add_patch(Rectangle((left, 0), columns, rows, facecolor="black", edgecolor="none", zorder=-1))
        _draw_slice(axes, scene, scale, left)
        _draw_caption(axes, caption, top=rows)
        out = io.BytesIO()
        no_date = {"Date" if figure_format == "svg" else "CreationDate": None}
        figure.savefig(out, format=figure_format, metadata={"Title": caption.title, **no_date})
    return out.getvalue()


def _draw_slice(axes: Axes, scene: Scene, scale: Scale, left: int) -> None:
    """The slice and the outlines of its marks, `left` px from the paper's left."""
    rows, columns = scene.slice.shape[:2]
    x, y, factor = left + scale.frame_px, scale.frame_px, scale.factor
    extent = (x, x + columns * factor, y + rows * factor, y)
    axes.imshow(scene.slice, extent=extent, interpolation="none", origin="upper", aspect="auto", gid="slice")

    marks = [mark for mark in scene.marks if mark.mask.any()]
    edges = [trace_edges(mark.mask) for mark in marks]
    paths = [_to_path(chain_edges(found), scale.factor, (x, y)) for found in edges]
    if scene.style == "contour":
        for mark, path in zip(marks, paths, strict=True):
            axes.add_patch(_line(path, HALO_COLOUR, 2 * (scale.half_px + 1), gid=f"{_name(mark)}-halo"))
    for mark, path in zip(marks, paths, strict=True):
        line = _line(path, mark.colour, 2 * scale.half_px, gid=_name(mark))
        axes.add_patch(line)
        if scene.style == "errors":  # the half of the line that lies outside is cut off
            line.set_clip_path(path, axes.transData)
    if len(edges) == 2 and scene.style != "errors":
        shared = set(edges[1]) | {(stop, start) for start, stop in edges[1]}
        path = _to_path(chain_edges([edge for edge in edges[0] if edge in shared]), scale.factor, (x, y))
        line = _line(path, marks[0].colour, 2 * scale.half_px, gid="shared")
        line.set_linestyle((0, [dash_of(scale) / (2 * scale.half_px)] * 2))
        axes.add_patch(line)


def trace_edges(mask: Mask) -> list[Edge]:
    """The unit edges ((x, y), (x, y)) around the mask (H, W) in {0, 1}, in its corners' coordinates.

    Tumour lies to the right of each, looking along it in an image whose rows go down: clockwise around a
    region, the other way around a hole. The edge of the slice counts where tumour reaches it.
    """
    around = np.pad(mask, 1)
    tumour = around[1:-1, 1:-1] > 0
    sides = (
        (around[:-2, 1:-1], (0, 0), (1, 0)),  # above, from the left corner to the right
        (around[1:-1, 2:], (1, 0), (1, 1)),
        (around[2:, 1:-1], (1, 1), (0, 1)),
        (around[1:-1, :-2], (0, 1), (0, 0)),
    )
    edges = [
        ((column + x0, row + y0), (column + x1, row + y1))
        for beyond, (x0, y0), (x1, y1) in sides
        for row, column in np.argwhere(tumour & (beyond == 0)).tolist()
    ]
    return sorted(edges, key=lambda edge: (edge[0][1], edge[0][0], edge[1]))


def chain_edges(edges: list[Edge]) -> list[list[Point]]:
    """Unit edges joined to lines, open or closed (the last point is then the first), with a point a corner.

    The edges come in the order of `trace_edges`: a closed line then starts in its first corner.
    """
    onward: dict[Point, list[Point]] = defaultdict(list)
    for start, stop in edges:
        onward[start].append(stop)
    arrivals = Counter(stop for _, stop in edges)
    open_starts = [point for point, stops in onward.items() if len(stops) > arrivals[point]]
    chains = []
    for first in [*open_starts, *(start for start, _ in edges)]:
        if not onward[first]:
            continue
        chain = [first]
        while stops := onward.get(chain[-1]):
            stop = stops.pop()
            if len(chain) > 1 and _turn(chain[-2], chain[-1], stop) == 0:
                chain.pop()
            chain.append(stop)
        chains.append(chain)
    return chains


def _turn(a: Point, b: Point, c: Point) -> int:
    """Which way the line through a, b and c bends: 0 where it does not."""
    return (b[0] - a[0]) * (c[1] - b[1]) - (b[1] - a[1]) * (c[0] - b[0])


def _to_path(chains: list[list[Point]], factor: int, origin: Point) -> Path:
    points: list[Point] = []
    codes: list[np.uint8] = []
    for chain in chains:
        points += [(origin[0] + x * factor, origin[1] + y * factor) for x, y in chain]
        closes = chain[0] == chain[-1]
        codes += [Path.MOVETO, *[Path.LINETO] * (len(chain) - 2), Path.CLOSEPOLY if closes else Path.LINETO]
    return Path(np.array(points, float).reshape(-1, 2), codes)


def _line(path: Path, colour: Colour, width_px: int, *, gid: str) -> PathPatch:
    line = PathPatch(path, facecolor="none", edgecolor=_rgb(colour), capstyle="butt", joinstyle="miter", gid=gid)
    line.set_linewidth(_points(width_px))
    return line


def _name(mark: Mark) -> str:
    """Its group in an SVG, by which an editor finds it; no name of one has a space."""
    return mark.name.replace(" ", "-")


def _draw_caption(axes: Axes, caption: Caption, *, top: int) -> None:
    ascent, descent = caption.font.getmetrics()
    to_baseline = (ascent - descent) / 2  # from the middle of a line of text
    font = {"size": _points(caption.font.size), "color": _rgb(TEXT_COLOUR), "va": "baseline", "ha": "left"}
    if caption.title:
        axes.text(caption.title_left, top + caption.title_middle + to_baseline, caption.title, font, gid="title")
    for (left, upper, right, lower), colour, text_left, label in caption.swatches:
        for grown, fill in ((1, HALO_COLOUR), (0, colour)):
            corner = (left - grown, top + upper - grown)
            size = (right - left + 2 * grown, lower - upper + 2 * grown)
            axes.add_patch(Rectangle(corner, *size, facecolor=_rgb(fill), edgecolor="none"))
        axes.text(text_left, top + caption.legend_middle + to_baseline, label, font)


def _points(px: float) -> float:
    return px * 72 / DPI


def _rgb(colour: Colour) -> tuple[float, float, float]:
    return colour[0] / 255, colour[1] / 255, colour[2] / 255
