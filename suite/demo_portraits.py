"""Drawn portraits of people who never lived, for the demo: one square, a face, and what tells it from others."""

from __future__ import annotations

import math
from random import Random

from suite.demo_painting import BLACK, WHITE, Canvas, Colour, Point, colour, colours, mix

_GROUNDS = {
    "green": colour("8fbf9f"),
    "yellow": colour("f2cd6b"),
    "blue": colour("86b3d9"),
    "pink": colour("f0a9ae"),
    "orange": colour("f0a467"),
    "violet": colour("ab9bd3"),
    "grey": colour("bcc3c8"),
    "teal": colour("6fb7b2"),
}
_SKINS = colours("f6d3bd", "eebf9f", "dca67c", "c68a5f", "a36a45", "7d4c30", "5c3723")
_HAIR = {
    "black": colour("231f20"),
    "brown": colour("5a3825"),
    "red": colour("a8492a"),
    "fair": colour("d9b36a"),
    "grey": colour("a9a9ad"),
    "white": colour("e9e6df"),
    "blue": colour("3f5fa8"),
}
_CLOTHES = colours("2f4858", "c8553d", "f2e8d5", "588157", "5b3f8c", "33658a", "e0a526", "2b2d42", "d9577a")


def portrait(canvas: Canvas, rng: Random) -> str:
    """Somebody's head and shoulders. Returns what is to be seen."""
    size = canvas.width
    ground = rng.choice(tuple(_GROUNDS))
    skin = rng.choice(_SKINS)
    # No fair skin is needed for fair hair, nor the other way round; only few people dye theirs blue.
    hair = rng.choices(tuple(_HAIR), (6, 6, 2, 3, 2, 1, 1))[0]
    style = rng.choice(("short", "short", "long", "curly", "tied up", "bobbed", "no"))
    ink = _HAIR[hair]
    canvas.wash([mix(_GROUNDS[ground], WHITE, 0.25), _GROUNDS[ground], mix(_GROUNDS[ground], BLACK, 0.12)])
    canvas.ellipse((size * 0.5, size * 0.47), size * 0.4, mix(_GROUNDS[ground], WHITE, 0.4), opacity=0.45)
    middle = size * rng.uniform(0.49, 0.51)
    face = (middle, size * 0.44)
    wide, high = size * rng.uniform(0.165, 0.185), size * rng.uniform(0.215, 0.235)

    _hair_behind(canvas, style, face, wide, high, ink)
    _shoulders(canvas, rng, middle, skin)
    _head(canvas, face, wide, high, skin)
    beard = style in ("short", "no", "curly") and rng.random() < 0.4
    if beard:
        _beard(canvas, face, wide, high, ink)
    _face(canvas, rng, face, wide, high, skin, mix(ink, BLACK, 0.35))
    _hair_before(canvas, rng, style, face, wide, high, ink)
    glasses = rng.random() < 0.35
    if glasses:
        _glasses(canvas, face, wide, high)
    traits = ["no hair" if style == "no" else f"{style} {hair} hair" if style != "tied up" else f"{hair} hair tied up"]
    traits += ["a beard"] if beard else []
    traits += ["glasses"] if glasses else []
    told = traits[0] if len(traits) == 1 else f"{', '.join(traits[:-1])} and {traits[-1]}"
    return (
        f"A drawn portrait of somebody with {told}, before {'an' if ground[0] in 'aeiou' else 'a'} {ground} background."
    )


def _arc(centre: Point, wide: float, high: float, start: float, end: float) -> list[Point]:
    """Part of an ellipse, by angles in degrees clockwise from the right."""
    steps = [math.radians(start + (end - start) * step / 48) for step in range(49)]
    return [(centre[0] + wide * math.cos(angle), centre[1] + high * math.sin(angle)) for angle in steps]


def _hair_behind(canvas: Canvas, style: str, face: Point, wide: float, high: float, ink: Colour) -> None:
    x, y = face
    dark = mix(ink, BLACK, 0.25)
    if style in ("long", "bobbed"):
        end = y + high * (2.05 if style == "long" else 1.0)
        top = _arc((x, y - high * 0.1), wide * 1.36, high * 1.18, 180, 360)
        canvas.polygon([*top, (x + wide * 1.46, end), (x - wide * 1.46, end)], dark, mix(dark, BLACK, 0.2))
        canvas.ellipse((x, end), wide * 1.46, mix(dark, BLACK, 0.2), flat=0.16)
    elif style == "curly":
        for number in range(13):
            angle = math.radians(150 + 240 * number / 12)
            at = (x + math.cos(angle) * wide * 1.12, y - high * 0.22 + math.sin(angle) * high * 0.92)
            canvas.ellipse(at, wide * 0.42, dark)
    elif style == "tied up":
        canvas.ellipse((x, y - high * 1.22), wide * 0.5, dark, mix(dark, BLACK, 0.2))


def _shoulders(canvas: Canvas, rng: Random, middle: float, skin: Colour) -> None:
    size = canvas.width
    cloth = rng.choice(_CLOTHES)
    top = size * 0.74
    body = [*_arc((middle, size * 1.02), size * 0.37, size * 1.02 - top, 180, 360), (middle + size * 0.37, size * 1.02)]
    canvas.polygon(body, mix(cloth, WHITE, 0.1), mix(cloth, BLACK, 0.2))
    neck = size * 0.075
    shade = mix(skin, BLACK, 0.2)
    canvas.polygon(
        [(middle - neck, size * 0.58), (middle + neck, size * 0.58), (middle + neck, top), (middle - neck, top)],
        shade,
        skin,
    )
    if rng.random() < 0.5:
        canvas.ellipse((middle, top + size * 0.004), neck * 1.5, skin, flat=0.55)
    else:
        canvas.polygon([(middle - neck * 1.25, top), (middle + neck * 1.25, top), (middle, size * 0.86)], skin)
        for side in (-1, 1):
            collar = [(middle + side * neck * 0.9, top - size * 0.02), (middle + side * neck * 1.9, top + size * 0.02)]
            canvas.polygon([*collar, (middle + side * neck * 0.5, size * 0.84)], mix(cloth, WHITE, 0.35))


def _head(canvas: Canvas, face: Point, wide: float, high: float, skin: Colour) -> None:
    x, y = face
    for side in (-1, 1):
        canvas.ellipse((x + side * wide, y + high * 0.06), wide * 0.17, mix(skin, BLACK, 0.1), flat=1.35)
    jaw = [
        *_arc((x, y - high * 0.12), wide, high * 0.88, 180, 360),
        *_arc((x, y - high * 0.12), wide, high * 1.12, 0, 180),
    ]
    canvas.polygon(jaw, mix(skin, WHITE, 0.08), skin, mix(skin, BLACK, 0.06))


def _beard(canvas: Canvas, face: Point, wide: float, high: float, ink: Colour) -> None:
    x, y = face
    outer = _arc((x, y - high * 0.05), wide * 1.02, high * 1.14, 5, 175)
    inner = _arc((x, y + high * 0.06), wide * 0.72, high * 0.4, 175, 5)
    canvas.polygon([*outer, *inner], ink, mix(ink, BLACK, 0.2))


def _face(canvas: Canvas, rng: Random, face: Point, wide: float, high: float, skin: Colour, brow: Colour) -> None:
    x, y = face
    thin = wide * 0.07
    dark = mix(skin, (60, 20, 10), 0.75)
    for side in (-1, 1):
        eye = (x + side * wide * 0.42, y + high * 0.0)
        canvas.ellipse((eye[0], y + high * 0.36), wide * 0.2, (226, 88, 80), opacity=0.22, soft=wide * 0.06)
        canvas.ellipse(eye, wide * 0.135, WHITE, flat=0.82)
        canvas.ellipse(eye, wide * 0.085, (38, 28, 26))
        canvas.ellipse((eye[0] - wide * 0.025, eye[1] - wide * 0.03), wide * 0.026, WHITE)
        canvas.line(_arc((eye[0], eye[1] - high * 0.06), wide * 0.22, high * 0.13, 215, 325), thin, brow)
    canvas.line(_arc((x, y + high * 0.22), wide * 0.12, high * 0.09, 20, 160), thin * 0.8, mix(skin, BLACK, 0.28))
    mouth = (x, y + high * rng.uniform(0.4, 0.46))
    if rng.random() < 0.4:
        smile = _arc(mouth, wide * 0.36, high * 0.23, 5, 175)
        canvas.polygon(smile, (122, 34, 38))
        canvas.polygon([*_arc(mouth, wide * 0.33, high * 0.09, 5, 175)], WHITE)
    else:
        reach = wide * rng.uniform(0.26, 0.36)
        canvas.line(_arc((x, mouth[1] - high * 0.02), reach, high * 0.15, 25, 155), thin, mix(dark, (170, 50, 50), 0.4))


def _hair_before(canvas: Canvas, rng: Random, style: str, face: Point, wide: float, high: float, ink: Colour) -> None:
    x, y = face
    light = mix(ink, WHITE, 0.12)
    if style == "no":
        return
    crown = _arc((x, y - high * 0.14), wide * 1.07, high * 0.96, 178, 362)
    if style == "curly":
        for number in range(9):
            angle = math.radians(195 + 150 * number / 8)
            at = (x + math.cos(angle) * wide * 0.86, y - high * 0.2 + math.sin(angle) * high * 0.72)
            canvas.ellipse(at, wide * 0.34, light if number % 2 else ink)
        return
    if style == "tied up":
        brow_line = _arc((x, y - high * 0.06), wide * 0.96, high * 0.62, 360, 180)
        canvas.polygon([*crown, *brow_line], light, ink)
        return
    if style == "bobbed":
        fringe = [(x + wide * 0.98, y - high * 0.22), (x - wide * 0.98, y - high * 0.22)]
        canvas.polygon([*crown, (x + wide * 1.07, y), *fringe, (x - wide * 1.07, y)], light, ink)
        for side in (-1, 1):
            strand = [
                (x + side * wide * 1.3, y - high * 0.5),
                (x + side * wide * 1.46, y + high),
                (x + side * wide * 0.98, y + high * 0.98),
            ]
            canvas.polygon([*strand, (x + side * wide * 0.9, y - high * 0.4)], ink, mix(ink, BLACK, 0.15))
        return
    # Parted on one side.
    side = rng.choice((-1, 1))
    parting = (x + side * wide * 0.45, y - high * 0.72)
    falls = [(x + side * wide * 0.98, y - high * 0.1), (x + side * wide * 0.86, y - high * 0.4), parting]
    falls += [(x - side * wide * 0.2, y - high * 0.48), (x - side * wide * 0.84, y - high * 0.36)]
    falls += [(x - side * wide * 0.98, y - high * 0.05)]
    canvas.polygon([*(crown if side > 0 else crown[::-1]), *falls], light, ink)
    if style == "long":
        for end in (-1, 1):
            strand = [(x + end * wide * 1.02, y - high * 0.4), (x + end * wide * 1.42, y - high * 0.1)]
            strand += [(x + end * wide * 1.46, y + high * 1.9), (x + end * wide * 0.95, y + high * 1.5)]
            canvas.polygon([*strand, (x + end * wide * 0.9, y)], ink, mix(ink, BLACK, 0.2))


def _glasses(canvas: Canvas, face: Point, wide: float, high: float) -> None:
    x, y = face
    frame: Colour = (40, 40, 48)
    for side in (-1, 1):
        eye = (x + side * wide * 0.43, y + high * 0.01)
        canvas.ellipse(eye, wide * 0.33, WHITE, flat=0.95, opacity=0.16)
        canvas.line(_arc(eye, wide * 0.33, wide * 0.31, 0, 360), wide * 0.055, frame)
        canvas.line(
            [(x + side * wide * 0.76, y - high * 0.03), (x + side * wide * 1.02, y - high * 0.06)], wide * 0.05, frame
        )
    canvas.line(_arc((x, y), wide * 0.11, high * 0.07, 200, 340), wide * 0.055, frame)
