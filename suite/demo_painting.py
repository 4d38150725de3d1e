"""Means of painting: light, shapes with smooth edges, shading and grain. Positions are in pixels from the top left."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

Colour = tuple[int, int, int]
Point = tuple[float, float]

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)

# Edges are drawn so many times as large.
_SMOOTH = 3


class Canvas:
    """A picture that is being painted."""

    def __init__(self, size: tuple[int, int], ground: Colour = BLACK) -> None:
        self.width, self.height = size
        self.image = Image.new("RGB", size, ground)

    def wash(self, colours: Sequence[Colour], top: float = 0, bottom: float | None = None) -> None:
        """Colours that pass into each other from top to bottom, over the whole width."""
        end = self.height if bottom is None else bottom
        self.image.paste(_blend((self.width, max(1, round(end - top))), colours), (0, round(top)))

    def polygon(
        self, points: Sequence[Point], *colours: Colour, opacity: float = 1, soft: float = 0, blend_to: float = 0
    ) -> None:
        """A shape of one colour, or of several that pass into each other from top to bottom.

        Args:
            soft: How blurred its edges are.
            blend_to: Where the last colour is reached, if not at the lowest point.
        """
        left, top = min(x for x, _ in points), min(y for _, y in points)
        right, bottom = max(x for x, _ in points), max(y for _, y in points)

        def draw(pen: ImageDraw.ImageDraw, place: Callable[[Point], Point]) -> None:
            pen.polygon([place(point) for point in points], fill=255)

        self._paint((left, top, right, bottom), draw, colours, opacity, soft, blend_to)

    def ellipse(
        self, centre: Point, radius: float, *colours: Colour, flat: float = 1, opacity: float = 1, soft: float = 0
    ) -> None:
        """A disc, or with another `flat` than 1 one that is so many times as high as it is wide."""
        (x, y), high = centre, radius * flat
        box = (x - radius, y - high, x + radius, y + high)

        def draw(pen: ImageDraw.ImageDraw, place: Callable[[Point], Point]) -> None:
            pen.ellipse([place((box[0], box[1])), place((box[2], box[3]))], fill=255)

        self._paint(box, draw, colours, opacity, soft)

    def line(self, points: Sequence[Point], width: float, colour: Colour, opacity: float = 1) -> None:
        """A line with round ends."""
        margin = width / 2
        xs, ys = [x for x, _ in points], [y for _, y in points]
        box = (min(xs) - margin, min(ys) - margin, max(xs) + margin, max(ys) + margin)

        def draw(pen: ImageDraw.ImageDraw, place: Callable[[Point], Point]) -> None:
            placed = [place(point) for point in points]
            pen.line(placed, fill=255, width=max(1, round(width * _SMOOTH)), joint="curve")
            reach = margin * _SMOOTH
            for x, y in (placed[0], placed[-1]):
                pen.ellipse([x - reach, y - reach, x + reach, y + reach], fill=255)

        self._paint(box, draw, (colour,), opacity, 0)

    def ball(self, centre: Point, radius: float, colour: Colour, flat: float = 1, turned: float = 0) -> None:
        """Something round that is lit from the upper left; `flat` and turned (in degrees) for what is longer."""
        side = max(4, round(2 * radius))
        high = max(4, round(2 * radius * flat))
        shade = Image.radial_gradient("L").resize((round(side * 1.9), round(high * 1.9)), Image.Resampling.BILINEAR)
        # The centre of the light is at a third of the ball.
        left, top = round(side * 0.62), round(high * 0.64)
        shade = shade.crop((left, top, left + side, top + high))
        lit = ImageOps.colorize(
            shade, mix(colour, WHITE, 0.6), mix(colour, BLACK, 0.6), colour, whitepoint=165, midpoint=58
        )
        mask = Image.new("L", (side * _SMOOTH, high * _SMOOTH))
        ImageDraw.Draw(mask).ellipse([0, 0, side * _SMOOTH - 1, high * _SMOOTH - 1], fill=255)
        mask = mask.reduce(_SMOOTH)
        if turned:
            lit = lit.rotate(turned, Image.Resampling.BICUBIC, expand=True)
            mask = mask.rotate(turned, Image.Resampling.BICUBIC, expand=True)
        at = (round(centre[0] - mask.width / 2), round(centre[1] - mask.height / 2))
        self.image.paste(lit, at, mask)

    def glow(self, centre: Point, radius: float, colour: Colour, strength: float = 1) -> None:
        """Light around something."""
        side = max(4, round(2 * radius))
        light = ImageOps.invert(Image.radial_gradient("L")).point([_glowing(level, strength) for level in range(256)])
        at = (round(centre[0] - side / 2), round(centre[1] - side / 2))
        self.image.paste(
            colour, (*at, at[0] + side, at[1] + side), light.resize((side, side), Image.Resampling.BICUBIC)
        )

    def mirror(self, horizon: float, dark: Colour, depth: float) -> None:
        """Let everything above a horizon be seen in the water below it."""
        at = round(horizon)
        high = self.height - at
        above = ImageOps.flip(self.image.crop((0, at - high, self.width, at)))
        above = above.resize((self.width, max(2, high // 6)), Image.Resampling.BOX).resize(above.size)
        above = Image.blend(above, Image.new("RGB", above.size, dark), depth)
        self.image.paste(above, (0, at))

    def finish(self, rng: Random, grain: int = 5, vignette: float = 0.2) -> Image.Image:
        """The picture, darker to its corners, with a grain as of film."""
        size = self.image.size
        if vignette:
            levels = [255 - round(max(0, level - 120) * vignette) for level in range(256)]
            edge = Image.radial_gradient("L").point(levels).resize(size, Image.Resampling.BICUBIC)
            self.image = ImageChops.multiply(self.image, Image.merge("RGB", (edge, edge, edge)))
        if grain:
            noise = Image.frombytes("L", size, rng.randbytes(size[0] * size[1]))
            noise = noise.point([128 + round((level - 127.5) / 127.5 * grain) for level in range(256)])
            self.image = ImageChops.add(self.image, Image.merge("RGB", (noise, noise, noise)), offset=-128)
        return self.image

    def _paint(
        self,
        box: tuple[float, float, float, float],
        draw: Callable[[ImageDraw.ImageDraw, Callable[[Point], Point]], None],
        colours: Sequence[Colour],
        opacity: float,
        soft: float,
        blend_to: float = 0,
    ) -> None:
        margin = math.ceil(2 * soft) + 1
        left, top = math.floor(box[0]) - margin, math.floor(box[1]) - margin
        size = (math.ceil(box[2]) + margin - left, math.ceil(box[3]) + margin - top)
        mask = Image.new("L", (size[0] * _SMOOTH, size[1] * _SMOOTH))
        draw(ImageDraw.Draw(mask), lambda point: ((point[0] - left) * _SMOOTH, (point[1] - top) * _SMOOTH))
        mask = mask.reduce(_SMOOTH)
        if soft:
            mask = mask.filter(ImageFilter.GaussianBlur(soft))
        if opacity < 1:
            mask = mask.point([round(level * opacity) for level in range(256)])
        if len(colours) == 1:
            self.image.paste(colours[0], (left, top, left + size[0], top + size[1]), mask)
            return
        fill = Image.new("RGB", size, colours[-1])
        fill.paste(_blend((size[0], max(2, round(blend_to - top) if blend_to else size[1])), colours))
        self.image.paste(fill, (left, top), mask)


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """A colour between two: `share` is how much of it is the other."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def colour(code: str) -> Colour:
    """A colour by its code: ff8800."""
    return int(code[:2], 16), int(code[2:4], 16), int(code[4:], 16)


def colours(*codes: str) -> list[Colour]:
    """Colours by their codes."""
    return [colour(code) for code in codes]


def waves(rng: Random, width: int, base: float, height: float, humps: float) -> list[Point]:
    """A smooth line from left to right, about `height` up and down of `base`."""
    parts = [(rng.uniform(0.6, 1.2) * humps * 2**octave, rng.uniform(0, math.tau), 0.5**octave) for octave in range(3)]

    def y(x: float) -> float:
        return base - height * sum(part * math.sin(math.pi * turns * x + phase) for turns, phase, part in parts) / 1.75

    return [(x, y(x / width)) for x in range(0, width + 8, 8)]


def crags(rng: Random, width: int, base: float, height: float, roughness: float = 0.5, peaks: int = 3) -> list[Point]:
    """A jagged line from left to right, up to `height` above `base`."""
    levels = [rng.uniform(0.15, 1) for _ in range(peaks + 1)]
    spread = 0.36
    while len(levels) < 200:
        between = [(a + b) / 2 + rng.uniform(-spread, spread) for a, b in itertools.pairwise(levels)]
        levels = [level for pair in zip(levels, [*between, 0], strict=True) for level in pair][:-1]
        spread *= roughness
    step = width / (len(levels) - 1)
    return [(number * step, base - height * level) for number, level in enumerate(levels)]


def down_to(line: Sequence[Point], bottom: float) -> list[Point]:
    """What is below a line."""
    return [*line, (line[-1][0], bottom), (line[0][0], bottom)]


def _blend(size: tuple[int, int], colours: Sequence[Colour]) -> Image.Image:
    if len(colours) == 1:
        return Image.new("RGB", size, colours[0])
    strip = Image.new("RGB", (1, len(colours)))
    strip.putdata(list(colours))
    return strip.resize((1, size[1]), Image.Resampling.BICUBIC).resize(size)


def _glowing(level: int, strength: float) -> int:
    # At the sides of the square nothing is left; its corners are darker still.
    share = max(0.0, (level - 75) / 180)
    return min(255, round(255 * strength * share**2))
