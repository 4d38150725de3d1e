"""Scenes that are painted for the demo: each in colours and a composition that are drawn by lot."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from random import Random

from suite.demo_painting import BLACK, WHITE, Canvas, Colour, Point, colours, crags, down_to, mix, waves

_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven")


def sea(canvas: Canvas, rng: Random) -> str:
    """The sun over the sea, between hills."""
    name, (sun, *sky) = rng.choice(
        (
            ("An orange sunset", colours("fff0c0", "2b2a58", "8a3f73", "e8735a", "fbbd6a")),
            ("A pink evening", colours("fff6e0", "3a4a86", "9a6fb0", "f39aa5", "fdd9b5")),
            ("A golden evening", colours("fffbe0", "4a6d8c", "c9a27a", "f6b85c", "ffe08a")),
            ("A red sunset", colours("ffe6a8", "1f1633", "6d1f45", "d0393f", "f7934c")),
            ("A pale morning", colours("ffffff", "6f9fc4", "a9c7d8", "f3d9c4", "ffeccf")),
        )
    )
    width, height = canvas.width, canvas.height
    unit = min(width, height)
    horizon = height * rng.uniform(0.52, 0.66)
    deep = mix(sky[0], BLACK, 0.35)
    canvas.wash(sky, 0, horizon)
    x, radius = width * rng.uniform(0.28, 0.72), unit * rng.uniform(0.06, 0.1)
    centre = (x, horizon - radius * rng.uniform(0.55, 2.4))
    canvas.glow(centre, radius * 7, mix(sun, sky[3], 0.4), 0.85)
    _clouds(canvas, rng, horizon * 0.75, mix(sky[2], sky[3], 0.6), mix(sky[1], sky[0], 0.3))
    canvas.ellipse(centre, radius, sun, mix(sun, sky[3], 0.35))

    layers = rng.randint(2, 4)
    side = rng.choice((-1, 1))
    for layer in range(layers):
        share = (layer + 1) / layers
        line = waves(rng, width, 0, unit * 0.035, rng.uniform(1.5, 3))
        rise = unit * (0.16 - 0.02 * layer)
        hills = [
            (at, min(horizon + 1, horizon + y - rise * _slope(at / width, side if layer % 2 == 0 else -side, 0.75)))
            for at, y in line
        ]
        far = mix(sky[3], mix(sky[0], BLACK, 0.25), 0.35 + 0.55 * share)
        canvas.polygon(down_to(hills, horizon + 1), far, mix(far, sky[3], 0.2))
    canvas.wash([mix(sky[3], deep, 0.25), mix(sky[2], deep, 0.5), mix(sky[1], deep, 0.75), deep], horizon)

    depth = height - horizon
    for _ in range(90):
        down = rng.random() ** 1.5
        length = unit * (0.02 + 0.1 * down) * rng.uniform(0.5, 1.3)
        near = abs(rng.gauss(0, 0.35 + 0.5 * down)) * rng.choice((-1, 1))
        middle, y = x + near * radius * 2.2, horizon + depth * (0.015 + 0.95 * down)
        light = max(0.1, 0.85 - abs(near) * 0.55 - down * 0.35)
        canvas.ellipse((middle, y), length, mix(sun, sky[3], 0.4), flat=0.055, opacity=light)
    for _ in range(45):
        down = rng.random()
        at = (rng.uniform(0, width), horizon + depth * down)
        canvas.ellipse(at, unit * (0.02 + 0.08 * down), deep, flat=0.04, opacity=0.3)

    boats = rng.choice((0, 1, 1, 2))
    for number in range(boats):
        off = width * (0.18 + 0.5 * number + rng.uniform(0, 0.2))
        _boat(canvas, (off, horizon + depth * rng.uniform(0.12, 0.3)), unit * rng.uniform(0.07, 0.11), deep, rng)
    sailing = ("", ", and a sailing boat on it", ", and two sailing boats on it")[boats]
    return f"{name} over a calm sea, with {_counted(layers, 'line')} of hills at the horizon{sailing}."


def city(canvas: Canvas, rng: Random) -> str:
    """A city at night, by the water."""
    sky_name, sky, lights = rng.choice(
        (
            ("a dark blue", colours("0a1030", "16245a", "3a4f94", "7d78b5"), colours("ffd98a", "ffeeb8", "ffc766")),
            ("a purple", colours("150a2e", "3b1a5c", "8a3a80", "e07a7a"), colours("ffe2a0", "ffcf7a", "fff2cc")),
            ("a teal", colours("04202b", "0b3f4f", "2a7c85", "9ac4b0"), colours("ffdf94", "ffd070", "f6f2d0")),
            ("a violet and orange", colours("1a1440", "47306f", "b5567a", "f7a35c"), colours("fff0b0", "ffd27a")),
        )
    )
    width, height = canvas.width, canvas.height
    unit = min(width, height)
    shore = height * rng.uniform(0.76, 0.84)
    canvas.wash(sky, 0, shore)
    _stars(canvas, rng, 240, shore * 0.6)
    moon = rng.random() < 0.6
    if moon:
        centre = (width * rng.uniform(0.15, 0.85), shore * rng.uniform(0.12, 0.3))
        canvas.glow(centre, unit * 0.3, mix(sky[2], WHITE, 0.4), 0.6)
        canvas.ellipse(centre, unit * 0.045, (250, 245, 225), (232, 224, 200))
    tallest = 0.0
    for layer, (share, most) in enumerate(((0.35, 0.6), (0.62, 0.5), (0.88, 0.36))):
        wall = mix(sky[3], mix(sky[0], BLACK, 0.45), share)
        x = -unit * rng.uniform(0, 0.06)
        while x < width:
            wide = unit * rng.uniform(0.06, 0.13) * (1 + 0.2 * layer)
            high = shore * most * rng.uniform(0.35, 1) ** 1.2
            tallest = max(tallest, high)
            _building(canvas, rng, (x, shore - high, x + wide, shore), wall, lights if layer else lights[:1], layer)
            x += wide + unit * rng.choice((0, 0, 0.01, 0.02))
    canvas.mirror(shore, mix(sky[0], BLACK, 0.3), 0.45)
    for _ in range(60):
        y = shore + (height - shore) * rng.random()
        at = (rng.uniform(0, width), y)
        canvas.ellipse(at, unit * rng.uniform(0.02, 0.08), mix(sky[0], BLACK, 0.2), flat=0.035, opacity=0.5)
    canvas.polygon([(0, shore - 2), (width, shore - 2), (width, shore + 3), (0, shore + 3)], mix(sky[0], BLACK, 0.6))
    above = "under a full moon" if moon else "under the stars"
    return f"The lit windows of a city by the water at night, {above} in {sky_name} sky."


def mountains(canvas: Canvas, rng: Random) -> str:
    """Mountains behind each other in the mist."""
    time, (far, near, light) = rng.choice(
        (
            ("in blue morning mist", colours("dfe9f0", "16324a", "fff4dc")),
            ("in violet evening mist", colours("f4dce0", "2f2450", "ffe9c9")),
            ("in green mist after the rain", colours("e6efe2", "12382f", "fdfbe6")),
            ("in the haze of a hot day", colours("fbe6c8", "5a2a26", "fff6d8")),
            ("in grey winter mist", colours("eef0f2", "2a3440", "ffffff")),
        )
    )
    width, height = canvas.width, canvas.height
    unit = min(width, height)
    canvas.wash([mix(far, near, 0.45), mix(far, near, 0.2), far, mix(far, light, 0.5)], 0, height * 0.7)
    centre = (width * rng.uniform(0.2, 0.8), height * rng.uniform(0.16, 0.3))
    canvas.glow(centre, unit * 0.6, light, 0.75)
    canvas.ellipse(centre, unit * rng.uniform(0.04, 0.06), light, opacity=0.95)
    layers = rng.randint(5, 7)
    for layer in range(layers):
        share = layer / (layers - 1)
        base = height * (0.46 + 0.44 * share)
        rise = height * (0.3 - 0.16 * share) * rng.uniform(0.85, 1.15)
        line = crags(rng, width, base, rise, 0.46 + 0.05 * share, rng.randint(2, 4))
        colour = mix(far, near, 0.16 + 0.84 * share**1.15)
        mist = mix(colour, far, 0.75 * (1 - share) + 0.12)
        canvas.polygon(down_to(line, height), colour, mix(colour, mist, 0.5), mist, blend_to=base + height * 0.12)
    trees = rng.random() < 0.75
    if trees:
        ground = waves(rng, width, height * 0.95, unit * 0.02, 2)
        dark = mix(near, BLACK, 0.35)
        for number in range(round(width / unit * 26)):
            x = (number + rng.random()) * unit / 26
            _pine(canvas, (x, height * 0.97), unit * rng.uniform(0.06, 0.19) * (0.55 + abs(x / width - 0.5)), dark)
        canvas.polygon(down_to(ground, height), dark)
    birds = rng.randint(0, 7) if rng.random() < 0.6 else 0
    _birds(canvas, rng, (width * rng.uniform(0.3, 0.7), height * 0.25), birds if birds > 2 else 0, mix(near, far, 0.2))
    what = [f"{_counted(layers, 'mountain ridge')} behind each other {time}"]
    what += ["pine trees in front"] if trees else []
    what += ["birds passing by"] if birds > 2 else []
    return _sentence(what)


def tiles(canvas: Canvas, rng: Random) -> str:
    """Circles, quarters and stripes in a grid, as the Bauhaus would have liked."""
    name, palette = rng.choice(_PALETTES)
    width, height = canvas.width, canvas.height
    across = rng.choice((3, 4, 4, 5))
    # Whole pixels, so that no seam is seen between two tiles.
    side = math.ceil(width / across)
    down = math.ceil(height / side)
    top = (height - down * side) // 2
    for row in range(down):
        before = None
        for column in range(across):
            x, y = column * side, top + row * side
            back, ink, other = rng.sample(palette, 3)
            while back == before:
                back, ink, other = rng.sample(palette, 3)
            before = back
            canvas.polygon(_rectangle(x - 1, y - 1, side + 2, side + 2), back)
            rng.choice(_TILES)(canvas, rng, (x, y), side, ink, other)
    return f"An abstract composition of circles, quarters and stripes in {name}."


def circles(canvas: Canvas, rng: Random) -> str:
    """Overlapping circles and lines, as Kandinsky would have liked."""
    name, palette = rng.choice(_PALETTES)
    ground, *inks = palette
    width, height = canvas.width, canvas.height
    unit = min(width, height)
    canvas.wash([mix(ground, WHITE, 0.25), ground, mix(ground, inks[0], 0.12)])
    heart = (width * rng.uniform(0.35, 0.65), height * rng.uniform(0.35, 0.65))
    canvas.ellipse(heart, unit * 0.42, mix(ground, inks[1], 0.35), opacity=0.7, soft=unit * 0.04)
    count = rng.randint(7, 11)
    for number in range(count):
        angle, far = math.tau * (number / count + rng.uniform(0, 0.3)), rng.uniform(0.05, 0.4) * unit
        at = (heart[0] + math.cos(angle) * far * width / unit, heart[1] + math.sin(angle) * far * height / unit)
        radius = unit * rng.uniform(0.08, 0.22) * (1.2 - number / count * 0.6)
        ink = inks[number % len(inks)]
        canvas.ellipse((at[0] + radius * 0.06, at[1] + radius * 0.1), radius, BLACK, opacity=0.22, soft=unit * 0.012)
        canvas.ellipse(at, radius, ink, opacity=rng.choice((1, 0.88, 0.75)))
        for ring in range(rng.randint(0, 3)):
            canvas.ellipse(at, radius * (0.72 - 0.22 * ring), inks[(number + ring + 1) % len(inks)])
    for _ in range(rng.randint(3, 6)):
        angle, long = rng.uniform(0, math.pi), unit * rng.uniform(0.3, 0.75)
        at = (width * rng.uniform(0.2, 0.8), height * rng.uniform(0.2, 0.8))
        across = (math.cos(angle) * long / 2, math.sin(angle) * long / 2)
        ends = [(at[0] - across[0], at[1] - across[1]), (at[0] + across[0], at[1] + across[1])]
        canvas.line(ends, unit * rng.choice((0.004, 0.006, 0.012)), mix(rng.choice(inks), BLACK, 0.5))
    for _ in range(rng.randint(4, 12)):
        at = (width * rng.uniform(0.06, 0.94), height * rng.uniform(0.06, 0.94))
        canvas.ellipse(at, unit * rng.uniform(0.006, 0.016), rng.choice(inks))
    return f"An abstract composition of {count} overlapping circles, with lines across them, in {name}."


def fruit(canvas: Canvas, rng: Random) -> str:
    """A bowl of fruit on a table."""
    bowl_name, (wall, table, bowl) = rng.choice(
        (
            ("white", colours("7d9a94", "b98a5e", "f1ece0")),
            ("blue", colours("c9b79c", "6f4a33", "3b6592")),
            ("clay", colours("3d4a5c", "8c6a4a", "c06a45")),
            ("green", colours("d8a49a", "f0e2d0", "5c8168")),
            ("dark", colours("e3c36e", "a9673f", "3a3842")),
            ("yellow", colours("8a5a6a", "d9c3a5", "e0b04a")),
        )
    )
    width, height = canvas.width, canvas.height
    unit = min(width, height)
    edge = height * rng.uniform(0.6, 0.66)
    canvas.wash([mix(wall, BLACK, 0.15), wall, mix(wall, WHITE, 0.1)], 0, edge)
    canvas.glow((width * 0.2, height * 0.15), unit * 0.9, mix(wall, WHITE, 0.6), 0.5)
    canvas.wash([mix(table, WHITE, 0.12), table, mix(table, BLACK, 0.3)], edge)
    canvas.polygon(_rectangle(0, edge - 2, width, 5), mix(table, BLACK, 0.35), opacity=0.5, soft=2)
    x, rim = width * rng.uniform(0.44, 0.56), edge - unit * 0.05
    radius = unit * rng.uniform(0.31, 0.35)
    foot = rim + radius * 0.82
    canvas.ellipse((x + radius * 0.25, foot), radius * 1.15, BLACK, flat=0.2, opacity=0.5, soft=unit * 0.025)

    # The inside of the bowl, what lies in it from the back to the front, and its wall before that.
    canvas.ellipse((x, rim), radius, mix(bowl, BLACK, 0.5), mix(bowl, BLACK, 0.25), flat=0.24)
    kinds = rng.sample(tuple(_FRUIT), rng.choice((2, 3, 3)))
    places = [(-0.5, -0.2), (0.05, -0.32), (0.55, -0.18), (-0.26, -0.52), (0.3, -0.5)]
    places += [(-0.62, 0.0), (-0.2, -0.06), (0.24, -0.04), (0.64, 0.0)]
    for number, (right, up) in enumerate(places):
        kind = kinds[number % len(kinds)] if number < 6 else rng.choice(kinds)
        at = (x + right * radius + rng.uniform(-6, 6), rim + up * radius - radius * 0.02 + rng.uniform(-6, 6))
        canvas.ellipse((at[0] + 4, at[1] + radius * 0.1), radius * 0.24, BLACK, opacity=0.28, soft=unit * 0.014)
        _FRUIT[kind](canvas, rng, at, radius * 0.27)
    curve = [(math.cos(angle), math.sin(angle)) for angle in (math.pi * step / 40 for step in range(41))]
    front = [(x + radius * right, rim + radius * 0.24 * down) for right, down in curve]
    # It stands on a flat foot.
    under = [(x + radius * right, rim + radius * min(0.86 * down, 0.81)) for right, down in curve]
    canvas.polygon([*front, *reversed(under)], mix(bowl, WHITE, 0.14), bowl, mix(bowl, BLACK, 0.45))
    shine = [(x + radius * right * 0.93, rim + radius * (0.3 * down + 0.06)) for right, down in curve[24:37]]
    canvas.line(shine, radius * 0.035, mix(bowl, WHITE, 0.6), opacity=0.5)
    canvas.line(front, radius * 0.03, mix(bowl, WHITE, 0.35))
    outside = kinds[0]
    at = (x + radius * rng.choice((-1.12, 1.12)), foot - radius * 0.14)
    canvas.ellipse(
        (at[0] + radius * 0.1, foot + radius * 0.08), radius * 0.3, BLACK, flat=0.3, opacity=0.5, soft=unit * 0.015
    )
    _FRUIT[outside](canvas, rng, at, radius * 0.25)
    several = " and ".join([", ".join(kinds[:-1]), kinds[-1]])
    return f"Still life: {several} in a {bowl_name} bowl on a table."


def night(canvas: Canvas, rng: Random) -> str:
    """Stars and the moon over dark hills."""
    name, sky = rng.choice(
        (
            ("deep blue", colours("050a1f", "0d1d45", "1f3d74", "4a6fa0")),
            ("violet", colours("0c0620", "24124a", "4d2a78", "a0609a")),
            ("green and blue", colours("03121f", "07303d", "125a57", "4fa07a")),
            ("late evening", colours("0a1030", "1d2a5e", "5c4a80", "d98a6a")),
        )
    )
    width, height = canvas.width, canvas.height
    unit = min(width, height)
    canvas.wash(sky, 0, height * 0.9)
    lean, start = rng.uniform(0.35, 0.9) * rng.choice((-1, 1)), rng.uniform(0.3, 0.7)
    for _ in range(70):
        down = rng.random()
        at = (width * (start + lean * (down - 0.4)) + rng.gauss(0, 0.05) * unit, height * 0.8 * down)
        canvas.glow(at, unit * rng.uniform(0.05, 0.16), mix(sky[3], WHITE, rng.uniform(0.1, 0.5)), 0.16)
    _stars(canvas, rng, 420, height * 0.85)
    for _ in range(rng.randint(10, 18)):
        at = (rng.uniform(0, width), rng.uniform(0, height * 0.6))
        size = unit * rng.uniform(0.0016, 0.0032)
        canvas.glow(at, size * 7, WHITE, 0.5)
        canvas.ellipse(at, size, WHITE)
    centre = (width * rng.uniform(0.2, 0.8), height * rng.uniform(0.17, 0.34))
    radius = unit * rng.uniform(0.07, 0.11)
    moon = rng.choice(("full moon", "crescent moon", "crescent moon"))
    canvas.glow(centre, radius * 4.5, mix(sky[3], WHITE, 0.6), 0.6)
    if moon == "full moon":
        _full_moon(canvas, rng, centre, radius)
    else:
        _crescent(canvas, centre, radius, rng.uniform(0, math.tau), mix(sky[0], sky[2], 0.5))
    for layer in range(3):
        share = (layer + 1) / 3
        line = waves(rng, width, height * (0.74 + 0.07 * layer), unit * 0.05, rng.uniform(1.2, 2.6))
        canvas.polygon(down_to(line, height), mix(sky[3], mix(sky[0], BLACK, 0.5), 0.55 + 0.45 * share))
    dark = mix(sky[0], BLACK, 0.6)
    tent = rng.random() < 0.5
    if tent:
        at = (width * rng.uniform(0.25, 0.75), height * 0.935)
        _tent(canvas, at, unit * 0.1, rng.choice(colours("ffb44a", "ff8f5a", "ffd873")), dark)
    spot = at[0] if tent else -unit
    for number in range(round(width / unit * 18)):
        x = (number + rng.random()) * unit / 18
        if abs(x - spot) > unit * 0.17:
            _pine(canvas, (x, height * 0.95), unit * rng.uniform(0.05, 0.2) * (0.45 + abs(x / width - 0.5) * 1.3), dark)
    canvas.polygon(down_to(waves(rng, width, height * 0.945, unit * 0.008, 3), height), dark)
    below = "a lit tent between pine trees" if tent else "dark hills and pine trees"
    return f"A {moon} in a starry {name} sky over {below}."


def balloons(canvas: Canvas, rng: Random) -> str:
    """Hot-air balloons over hills."""
    time, sky, land = rng.choice(
        (
            ("at dawn", colours("6fa3d0", "a9cbe0", "fbe0c4", "ffc9a0"), colours("8a9a6a", "2f5a4a")),
            ("on a clear morning", colours("3f8fd0", "7fbce6", "cfe8f2", "f6f3e0"), colours("a8c070", "3f7a4a")),
            ("in the evening", colours("5a4a90", "b070a0", "f59a80", "ffd08a"), colours("8a5070", "2f2048")),
            ("in dry country", colours("5fb0c0", "a0d4d0", "f5e6c0", "ffdba0"), colours("e0a868", "8a4a30")),
        )
    )
    width, height = canvas.width, canvas.height
    unit = min(width, height)
    canvas.wash(sky, 0, height * 0.8)
    sun = (width * rng.uniform(0.1, 0.9), height * rng.uniform(0.55, 0.66))
    canvas.glow(sun, unit * 0.7, mix(sky[3], WHITE, 0.6), 0.9)
    _clouds(canvas, rng, height * 0.6, mix(sky[2], WHITE, 0.6), WHITE)
    for layer in range(4):
        share = layer / 3
        line = waves(rng, width, height * (0.7 + 0.075 * layer), unit * 0.045, rng.uniform(1.2, 2.6))
        colour = mix(mix(sky[3], land[0], 0.4), land[1], share)
        canvas.polygon(
            down_to(line, height), mix(colour, sky[3], 0.25), colour, blend_to=height * (0.82 + 0.075 * layer)
        )
    count = rng.randint(3, 6)
    taken: list[tuple[float, float, float]] = []
    for number in range(count):
        size = unit * (0.17 if number == count - 1 else rng.uniform(0.035, 0.1))
        for _ in range(40):
            at = (width * rng.uniform(0.14, 0.86), height * rng.uniform(0.16, 0.56))
            if all(math.dist(at, (x, y)) > 1.5 * (size + other) for x, y, other in taken):
                break
        taken.append((*at, size))
    for x, y, size in sorted(taken, key=lambda balloon: balloon[2]):
        _balloon(canvas, rng, (x, y), size, mix(WHITE, sky[2], 0.5), max(0.0, 0.5 - size / unit * 3.5))
    return f"{_counted(count, 'hot-air balloon').capitalize()} over hills {time}."


# Paints, and returns what is to be seen.
Scene = Callable[[Canvas, Random], str]

SCENES: tuple[Scene, ...] = (
    sea,
    tiles,
    mountains,
    city,
    circles,
    balloons,
    fruit,
    night,
)

_PALETTES = (
    ("red, blue and yellow", colours("f2e8d5", "d8402f", "1f4e8c", "f2b632", "22242a")),
    ("orange, teal and pink", colours("f7ecdc", "e8743b", "1f7a7a", "f0a6a0", "2b2d42")),
    ("green, ochre and brown", colours("f4efdf", "4f7a52", "d9a441", "8a4b32", "25302a")),
    ("blues and coral", colours("eef2f0", "1d3f5e", "5fa3b8", "ff7a5c", "f3c98b")),
    ("violet, mustard and mint", colours("f5eee6", "5b3f8c", "e0a526", "7cc2a8", "d9577a")),
)


def _counted(count: int, noun: str) -> str:
    return f"{_COUNTS[count]} {noun}{'' if count == 1 else 's'}"


def _sentence(parts: list[str]) -> str:
    text = ", ".join(parts)
    return text[0].upper() + text[1:] + "."


def _slope(share: float, side: int, reach: float) -> float:
    """How high a shore is that falls from one side of the picture towards the other."""
    away = share if side < 0 else 1 - share
    return math.pow(max(0.0, 1 - away / reach), 1.3)


def _rectangle(x: float, y: float, width: float, height: float) -> list[Point]:
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]


def _clouds(canvas: Canvas, rng: Random, bottom: float, bright: Colour, dark: Colour) -> None:
    unit = min(canvas.width, canvas.height)
    for _ in range(rng.randint(3, 7)):
        x, y = rng.uniform(0, canvas.width), rng.uniform(0.25, 1) * bottom
        for _ in range(rng.randint(3, 6)):
            at = (x + rng.gauss(0, 0.12) * unit, y + rng.gauss(0, 0.012) * unit)
            colour = mix(dark, bright, y / bottom)
            canvas.ellipse(at, unit * rng.uniform(0.06, 0.2), colour, flat=0.09, opacity=0.35, soft=unit * 0.008)


def _stars(canvas: Canvas, rng: Random, count: int, bottom: float) -> None:
    for _ in range(count):
        x, y = rng.randrange(canvas.width - 1), round(bottom * rng.random() ** 1.15)
        light = rng.random() ** 2
        here = canvas.image.getpixel((x, y))
        assert isinstance(here, tuple)
        colour = mix(
            (here[0], here[1], here[2]), rng.choice(((255, 255, 255), (200, 220, 255), (255, 236, 210))), light
        )
        canvas.image.putpixel((x, y), colour)
        if light > 0.6:
            canvas.image.putpixel((x + 1, y), colour)
            canvas.image.putpixel((x, y + 1), colour)
            canvas.image.putpixel((x + 1, y + 1), colour)


def _full_moon(canvas: Canvas, rng: Random, centre: Point, radius: float) -> None:
    canvas.ellipse(centre, radius, (250, 246, 230), (226, 220, 204))
    for _ in range(9):
        angle, far = rng.uniform(0, math.tau), radius * rng.uniform(0, 0.66)
        at = (centre[0] + math.cos(angle) * far, centre[1] + math.sin(angle) * far)
        canvas.ellipse(at, radius * rng.uniform(0.07, 0.25), (190, 184, 172), opacity=0.4, soft=radius * 0.05)


def _crescent(canvas: Canvas, centre: Point, radius: float, angle: float, dark: Colour) -> None:
    """The lit edge of the moon, and the rest of it nearly as dark as the sky."""
    canvas.ellipse(centre, radius, mix(dark, WHITE, 0.12), opacity=0.55)
    outer = [angle - math.pi / 2 + math.pi * step / 40 for step in range(41)]
    rim = [(math.cos(turn) * radius, math.sin(turn) * radius) for turn in outer]
    # The inner edge is the outer one, pressed towards the middle.
    across = (math.cos(angle), math.sin(angle))
    inner = []
    for x, y in rim:
        out = x * across[0] + y * across[1]
        inner.append((x - across[0] * out * 0.55, y - across[1] * out * 0.55))
    canvas.polygon([(centre[0] + x, centre[1] + y) for x, y in [*rim, *reversed(inner)]], (252, 247, 228))


def _boat(canvas: Canvas, at: Point, size: float, dark: Colour, rng: Random) -> None:
    x, y = at
    sail = rng.choice(((250, 240, 225), (240, 200, 170), (255, 255, 255)))
    canvas.ellipse((x, y + size * 0.16), size * 0.55, dark, flat=0.12, opacity=0.5, soft=2)
    canvas.polygon(
        [
            (x - size * 0.5, y),
            (x + size * 0.55, y),
            (x + size * 0.35, y + size * 0.15),
            (x - size * 0.38, y + size * 0.15),
        ],
        dark,
    )
    canvas.line([(x, y), (x, y - size * 1.25)], max(1.5, size * 0.025), dark)
    canvas.polygon(
        [(x + size * 0.04, y - size * 1.2), (x + size * 0.5, y - size * 0.08), (x + size * 0.04, y - size * 0.08)],
        sail,
        mix(sail, dark, 0.25),
    )
    canvas.polygon(
        [(x - size * 0.04, y - size * 1.05), (x - size * 0.36, y - size * 0.08), (x - size * 0.04, y - size * 0.08)],
        mix(sail, dark, 0.15),
        mix(sail, dark, 0.4),
    )


def _building(
    canvas: Canvas, rng: Random, box: tuple[float, float, float, float], wall: Colour, lights: list[Colour], layer: int
) -> None:
    left, top, right, bottom = box
    canvas.polygon(_rectangle(left, top, right - left, bottom - top), mix(wall, WHITE, 0.06), wall)
    wide = right - left
    roof = rng.random()
    if roof < 0.25:
        canvas.line([(left + wide / 2, top), (left + wide / 2, top - wide * rng.uniform(0.3, 0.9))], 2.5, wall)
    elif roof < 0.5:
        canvas.polygon(_rectangle(left + wide * 0.25, top - wide * 0.16, wide * 0.5, wide * 0.17), wall)
    elif roof < 0.6:
        canvas.polygon([(left, top + 1), (right, top + 1), (left + wide / 2, top - wide * 0.38)], wall)
    across = max(2, round(wide / (13 if layer == 2 else 11)))
    cell = wide / (across + 0.6)
    high = cell * rng.choice((0.55, 0.75, 1.0))
    lit = (0.22, 0.42, 0.5)[layer] * rng.uniform(0.6, 1.25)
    row = top + cell * 0.7
    while row < bottom - cell:
        for column in range(across):
            if rng.random() < lit:
                x = left + cell * (0.45 + column)
                dim = (0.55, 0.2, 0.05)[layer]
                colour = mix(rng.choice(lights), wall, min(0.85, dim + rng.random() * 0.35))
                canvas.image.paste(colour, (round(x), round(row), round(x + cell * 0.58), round(row + high)))
        row += high + cell * 0.5


def _pine(canvas: Canvas, foot: Point, size: float, colour: Colour) -> None:
    x, y = foot
    wide = size * 0.24
    points = [(x, y - size)]
    for step in (0.3, 0.55, 0.8, 1.0):
        points += [
            (x + wide * step, y - size * (1 - step)),
            (x + wide * step * 0.55, y - size * (1 - step) - size * 0.02),
        ]
    left = [(2 * x - px, py) for px, py in reversed(points[1:])]
    canvas.polygon([*points, *left], colour)


def _birds(canvas: Canvas, rng: Random, at: Point, count: int, colour: Colour) -> None:
    unit = min(canvas.width, canvas.height)
    for _ in range(count):
        x, y = at[0] + rng.gauss(0, 0.1) * unit, at[1] + rng.gauss(0, 0.05) * unit
        size = unit * rng.uniform(0.008, 0.018)
        wings = [
            (x - size, y - size * 0.5),
            (x - size * 0.4, y - size * 0.55),
            (x, y),
            (x + size * 0.4, y - size * 0.55),
            (x + size, y - size * 0.5),
        ]
        canvas.line(wings, max(1.5, size * 0.16), colour)


def _tent(canvas: Canvas, at: Point, size: float, light: Colour, dark: Colour) -> None:
    x, y = at
    canvas.glow((x, y - size * 0.3), size * 2.4, light, 0.7)
    canvas.polygon(
        [(x - size, y + 6), (x, y - size * 0.95), (x + size, y + 6)],
        mix(light, WHITE, 0.25),
        light,
        mix(light, dark, 0.4),
    )
    canvas.polygon([(x - size * 0.2, y + 6), (x, y - size * 0.95), (x + size * 0.2, y + 6)], mix(light, dark, 0.55))
    canvas.line([(x, y - size * 0.95), (x + size, y + 4)], 2.5, mix(light, dark, 0.6))


def _balloon(canvas: Canvas, rng: Random, at: Point, size: float, haze: Colour, far: float) -> None:
    """A balloon; `far` is how much of the haze is before it."""
    x, y = at
    one, other = (mix(colour, haze, far) for colour in rng.sample(_BALLOONS, 2))
    high = size * 1.12

    def edge(turn: float) -> list[Point]:
        """A seam from the top to the mouth: -1 is the left edge, 1 the right one."""
        points = []
        for step in range(25):
            share = step / 24
            if share < 0.56:
                wide = math.sin(math.acos(max(-1.0, 1 - share / 0.56)))
            else:
                wide = 1 - 0.78 * ((share - 0.56) / 0.44) ** 1.25
            points.append((x + size * turn * wide, y - high + share * 2.2 * size))
        return points

    seams = [math.sin(math.pi / 2 * (-1 + 2 * number / 8)) for number in range(9)]
    for number, (left, right) in enumerate(itertools.pairwise(seams)):
        colour = one if number % 2 else other
        shade = mix(colour, BLACK, 0.07 * max(0, number - 3))
        shade = mix(shade, WHITE, 0.12 if number in (1, 2) else 0)
        canvas.polygon([*edge(left), *reversed(edge(right))], mix(shade, WHITE, 0.12), shade, mix(shade, BLACK, 0.3))
    mouth, basket = y - high + 2.2 * size, y + size * 1.36
    rope = mix((70, 50, 40), haze, far)
    for side in (-1, 1):
        canvas.line([(x + side * size * 0.2, mouth), (x + side * size * 0.12, basket)], max(1, size * 0.014), rope)
    wood = mix((120, 78, 48), haze, far)
    canvas.polygon(_rectangle(x - size * 0.13, basket, size * 0.26, size * 0.19), wood, mix(wood, BLACK, 0.4))


_BALLOONS = colours("d8402f", "f2b632", "1f6e8c", "f2e8d5", "e8743b", "5b3f8c", "2f8a6a", "e26a8a")


def _quarter(canvas: Canvas, rng: Random, at: Point, side: float, ink: Colour, other: Colour) -> None:
    corner, turn = rng.choice(((0, 0), (1, 1), (2, 2), (3, 3)))
    for radius, colour in ((side, ink), (side * 0.5, other)):
        canvas.polygon(_sector(at, side, corner, turn, radius), colour)


def _sector(at: Point, side: float, corner: int, turn: int, radius: float) -> list[Point]:
    """A quarter of a disc around a corner of a tile; the corners are counted clockwise from the upper left."""
    x, y = at[0] + side * (corner in (1, 2)), at[1] + side * (corner in (2, 3))
    start = turn * math.pi / 2
    arc = [start + math.pi / 2 * step / 24 for step in range(25)]
    return [(x, y), *((x + math.cos(angle) * radius, y + math.sin(angle) * radius) for angle in arc)]


def _disc(canvas: Canvas, rng: Random, at: Point, side: float, ink: Colour, other: Colour) -> None:
    centre = (at[0] + side / 2, at[1] + side / 2)
    canvas.ellipse(centre, side * 0.42, ink)
    if rng.random() < 0.6:
        canvas.ellipse(centre, side * 0.22, other)


def _half(canvas: Canvas, rng: Random, at: Point, side: float, ink: Colour, other: Colour) -> None:
    """Two half discs above each other."""
    for row, colour in enumerate((ink, other)):
        y = at[1] + side * (row + 1) / 2
        arc = [math.pi + math.pi * step / 40 for step in range(41)]
        canvas.polygon([(at[0] + side / 2 * (1 + math.cos(a)), y + side / 2 * math.sin(a)) for a in arc], colour)


def _stripes(canvas: Canvas, rng: Random, at: Point, side: float, ink: Colour, other: Colour) -> None:
    upright = rng.random() < 0.5
    for number in range(4):
        offset = side * (number * 2 + 0.5) / 8
        box = (at[0] + offset, at[1], side / 8, side) if upright else (at[0], at[1] + offset, side, side / 8)
        canvas.polygon(_rectangle(*box), ink)


def _triangle(canvas: Canvas, rng: Random, at: Point, side: float, ink: Colour, other: Colour) -> None:
    corners = _rectangle(*at, side, side)
    left_out = rng.randrange(4)
    canvas.polygon([corner for number, corner in enumerate(corners) if number != left_out], ink)
    canvas.ellipse((at[0] + side / 2, at[1] + side / 2), side * 0.16, other)


def _leaf(canvas: Canvas, rng: Random, at: Point, side: float, ink: Colour, other: Colour) -> None:
    """What two quarters of discs have in common."""
    one = [(math.cos(a), math.sin(a)) for a in (math.pi / 2 * step / 24 for step in range(25))]
    first = [(at[0] + side * x, at[1] + side * y) for x, y in one]
    second = [(at[0] + side * (1 - x), at[1] + side * (1 - y)) for x, y in one]
    points = [*first, *second]
    if rng.random() < 0.5:
        points = [(2 * at[0] + side - x, y) for x, y in points]
    canvas.polygon(points, ink)


_TILES = (_quarter, _quarter, _disc, _half, _stripes, _triangle, _leaf)


def _apple(canvas: Canvas, rng: Random, at: Point, size: float) -> None:
    colour = rng.choice(colours("c8322d", "b32436", "d95a3a", "8fae3c"))
    canvas.ball(at, size, colour, 0.94)
    x, y = at
    canvas.ellipse(
        (x + size * 0.02, y - size * 0.72), size * 0.24, mix(colour, BLACK, 0.5), flat=0.4, opacity=0.55, soft=2
    )
    canvas.line([(x, y - size * 0.7), (x + size * 0.08, y - size * 1.08)], size * 0.09, (74, 48, 30))


def _orange(canvas: Canvas, rng: Random, at: Point, size: float) -> None:
    canvas.ball(at, size, rng.choice(colours("f08a24", "f29a2e", "e87a1c")))
    canvas.ellipse((at[0] + size * 0.1, at[1] - size * 0.62), size * 0.07, (92, 110, 50))


def _lemon(canvas: Canvas, rng: Random, at: Point, size: float) -> None:
    canvas.ball(at, size * 1.08, rng.choice(colours("f2cf3a", "f6d94f")), 0.72, rng.uniform(-40, 40))


def _plum(canvas: Canvas, rng: Random, at: Point, size: float) -> None:
    canvas.ball(at, size * 0.88, rng.choice(colours("5a3468", "472a5c", "6a3a5a")), 1.08)


def _pear(canvas: Canvas, rng: Random, at: Point, size: float) -> None:
    colour = rng.choice(colours("b9b545", "c9b94a", "9fae4a"))
    x, y = at
    lean = size * rng.uniform(-0.3, 0.3)
    canvas.ball((x + lean, y - size * 0.85), size * 0.52, colour, 1.15)
    canvas.ball((x + lean * 0.5, y - size * 0.45), size * 0.7, colour)
    canvas.ball((x, y), size * 0.98, colour, 0.95)
    canvas.line([(x + lean, y - size * 1.4), (x + lean * 1.5, y - size * 1.75)], size * 0.09, (74, 48, 30))


def _grapes(canvas: Canvas, rng: Random, at: Point, size: float) -> None:
    colour = rng.choice(colours("5b2f6a", "8aa84a", "3f2a55"))
    for row, count in enumerate((4, 5, 4, 3)):
        for number in range(count):
            x = at[0] + (number - (count - 1) / 2) * size * 0.46 + rng.uniform(-2, 2)
            canvas.ball((x, at[1] - size * 0.55 + row * size * 0.4), size * 0.29, colour)


_FRUIT: dict[str, Callable[[Canvas, Random, Point, float], None]] = {
    "apples": _apple,
    "oranges": _orange,
    "lemons": _lemon,
    "plums": _plum,
    "pears": _pear,
    "grapes": _grapes,
}
