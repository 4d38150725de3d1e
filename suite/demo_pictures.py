"""The pictures of the demo, painted by lot: the same random numbers make the same pixels."""

from __future__ import annotations

import io
from random import Random
from typing import NamedTuple

from PIL import Image

from services.posts.media import images
from services.posts.media.images import Processed
from suite.demo_painting import Canvas
from suite.demo_portraits import portrait
from suite.demo_scenes import SCENES

# Portrait, square and landscape, of nearly as many pixels.
_SIZES = ((864, 1080), (960, 960), (1080, 720))
_PORTRAIT_SIZE = (480, 480)

# Of the files that are made of them.
CONTENT_TYPE = "image/png"


class Picture(NamedTuple):
    """A picture, and what is to be seen on it, in a sentence."""

    image: Image.Image
    alt_text: str


def draw(rng: Random, number: int) -> Picture:
    """A picture for a post: a scene in RGB, up to 1,080 pixels wide. Which one it is goes by turns, by its number."""
    scene = SCENES[number % len(SCENES)]
    canvas = Canvas(rng.choice(_SIZES))
    alt_text = scene(canvas, rng)
    return Picture(canvas.finish(rng), alt_text)


def draw_portrait(rng: Random) -> Picture:
    """A picture for an avatar: somebody's portrait, a square in RGB."""
    canvas = Canvas(_PORTRAIT_SIZE)
    alt_text = portrait(canvas, rng)
    return Picture(canvas.finish(rng, grain=3, vignette=0.1), alt_text)


def uploaded(picture: Picture) -> Processed:
    """What the suite makes of the file of a picture when somebody uploads it."""
    file = io.BytesIO()
    # Nobody keeps it: a smaller one would only take time.
    picture.image.save(file, "PNG", compress_level=0)
    return images.process(file.getvalue(), CONTENT_TYPE)
