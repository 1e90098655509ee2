"""Removes the metadata of a PNG or WebP that would make Pillow refuse an image with intact pixels."""

import re
import struct
import zlib
from itertools import takewhile

from PIL import PngImagePlugin

from schemas.png import SIGNATURE, chunks

_ANCILLARY = 0x20  # the bit of a chunk's first letter
_ANIMATION, _FRAME, _FRAME_DATA = b"acTL", b"fcTL", b"fdAT"
_NEEDED = {b"tRNS", b"eXIf", _ANIMATION, _FRAME, _FRAME_DATA}  # transparency, orientation, animation
# ImageMagick writes EXIF as text; Pillow reads the orientation of XMP, too.
_ORIENTATION = re.compile(
    rb"tEXtRaw profile type exif\0|zTXtRaw profile type exif\0\0|iTXtXML:com\.adobe\.xmp\0..[^\0]*\0[^\0]*\0",
    re.DOTALL,
)
_WEBP_PIXELS = {b"VP8 ", b"VP8L", b"ANMF"}
_ANIMATION_BYTES = 8
_TRANSPARENCY_BYTES = {0: 2, 2: 6}  # by colour type: grey, RGB


def without_metadata(data: bytes, *, first_frame: bool = False) -> bytes:
    """Returns a PNG or WebP without unneeded or damaged metadata, and other data unchanged.

    first_frame leaves out the other frames of a PNG. Chunks with pixels are kept even if they are damaged, so that the
    decoder refuses the image.
    """
    if data.startswith(SIGNATURE):
        return _png(data, first_frame)
    return _webp(data) if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else data


def _webp(data: bytes) -> bytes:
    """Cuts a WebP after its last complete chunk: libwebp refuses a file with a truncated chunk, such as EXIF."""
    end, kinds = 12, set()
    announced = 8 + int.from_bytes(data[4:8], "little")
    while end + 8 <= min(len(data), announced):
        size = int.from_bytes(data[end + 4 : end + 8], "little")
        if end + 8 + size > min(len(data), announced):
            break
        kinds.add(data[end : end + 4])
        end += 8 + size + size % 2
    if end >= announced or not kinds & _WEBP_PIXELS:
        return data
    return data[:4] + (end - 8).to_bytes(4, "little") + data[8:end]


def _png(data: bytes, first_frame: bool) -> bytes:
    """Drops damaged ancillary chunks, as libpng does, and chunks that affect neither pixels nor orientation."""
    whole, start, end = memoryview(data), 0, len(SIGNATURE)
    kept: list[memoryview] = []
    places = list(chunks(data))
    needless = _needless_frames([data[begin + 4 : begin + 8] for begin, _ in places], first_frame)
    for begin, end in places:
        kind = data[begin + 4 : begin + 8]
        if kind in needless or not _is_kept(data, begin, end):
            kept.append(whole[start:begin])
            start = end
        if _ORIENTATION.match(data, begin + 4, end - 4):
            needless.add(kind)  # unpacking many texts would take most of a second
    if data[end + 4 : end + 5] and data[end + 4] & _ANCILLARY:  # the last chunk, cut short
        kept.append(whole[start:end])
        start = len(data)
    return b"".join([*kept, whole[start:]]) if kept else data


def _needless_frames(kinds: list[bytes], first_frame: bool) -> set[bytes]:
    """Returns the chunks that no decision needs: Pillow refuses damage in frames that nothing reads.

    A frame's header before the pixels makes them the first frame; without one, they are not part of the animation.
    """
    if _FRAME_DATA not in kinds:
        return {_ANIMATION, _FRAME}  # a still image
    if _FRAME in takewhile(lambda kind: kind != b"IDAT", kinds):
        return {_FRAME, _FRAME_DATA} | ({_ANIMATION} if first_frame else set())
    return set()


def _is_kept(data: bytes, begin: int, end: int) -> bool:
    kind = data[begin + 4 : begin + 8]
    if not kind[0] & _ANCILLARY:
        return True
    text = _ORIENTATION.match(data, begin + 4, end - 4)
    if kind not in _NEEDED and not text:
        return False
    content = memoryview(data)[begin + 4 : end - 4]
    if zlib.crc32(content) != struct.unpack_from(">I", data, end - 4)[0]:
        return False
    if kind == b"acTL":
        return end - begin - 12 >= _ANIMATION_BYTES
    if kind == b"tRNS":
        return end - begin - 12 >= _TRANSPARENCY_BYTES.get(data[25], 1)
    return not text or _fits(data[text.end() : end - 4])


def _fits(text: bytes) -> bool:
    """Returns whether Pillow accepts the text: it refuses a PNG whose unpacked text exceeds MAX_TEXT_CHUNK."""
    try:
        unpacked = zlib.decompressobj().decompress(text, PngImagePlugin.MAX_TEXT_CHUNK)
    except zlib.error:  # not compressed, or damaged, which Pillow ignores
        unpacked = text
    return len(unpacked) < PngImagePlugin.MAX_TEXT_CHUNK
