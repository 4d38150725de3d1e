"""Pixels of any kind as sRGB."""

from __future__ import annotations

import io

from PIL import Image, ImageCms

# How an image is called whose colours a profile of that space describes.
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def resizable(image: Image.Image) -> Image.Image:
    """The image in one of the modes L, LA, RGB, RGBA and CMYK, whose pixels can be averaged."""
    if image.mode == "I;16":
        # Pillow would cut off what is brighter than 255, of 65,535.
        return Image.frombytes("L", image.size, image.tobytes("raw", "I;16B")[::2])
    if image.mode in ("P", "PA") or "transparency" in image.info:
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image.convert("L") if image.mode == "1" else image


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """A resizable image as RGB in the colour space sRGB, or RGBA if anything of it is transparent."""
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    opaque = image.convert(image.mode.removesuffix("A")) if alpha is not None else image
    converted = (_by_profile(opaque, profile) if profile else None) or opaque.convert("RGB")
    if alpha is not None and alpha.getextrema() != (255, 255):
        converted.putalpha(alpha)
    return converted


def on_white(image: Image.Image) -> Image.Image:
    """The image as RGB, what is transparent as white."""
    if image.mode == "RGB":
        return image
    flat = Image.new("RGB", image.size, "white")
    flat.paste(image, mask=image)
    return flat


def _by_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """The image as its profile means it; None if the profile is broken, or of another kind of image."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _MODES.get(source.profile.xcolor_space.strip())
        if mode is None or (image.mode != mode and (image.mode, mode) != ("L", "RGB")):
            return None
        # Of each call its own: littleCMS profiles read on demand.
        srgb = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image.convert(mode), source, srgb, outputMode="RGB")
    except (OSError, TypeError, ValueError, ImageCms.PyCMSError):
        return None
