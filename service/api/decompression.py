"""Request bodies by gzip or deflate, unpacked while they come.

What is behind reads plain bytes, never more than a piece at a time, and counts them against its own limit. Once the
limit is passed it reads no more, so that a bomb costs no more than a plain body that is too large. Gzip data may be of
several members, one behind the other (RFC 1952, 2.2).

Packed by Transfer-Encoding a body is refused: nobody would unpack it.
"""

import zlib

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BodyTooLargeError, MalformedBodyError, UnsupportedMediaTypeError
from service.validation import shortened

PIECE_BYTES = 256 * 1024  # unpacked at once, on the event loop

_HEAD_BYTES = 2  # of zlib's header, and of a gzip member's
_MEMBER = b"\x1f\x8b"
_ENCODINGS = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}


class Decompression:
    """max_bytes is what a body may have, packed or not."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises UnsupportedMediaTypeError; receive raises MalformedBodyError."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        transfer = _codings(headers, "transfer-encoding", "chunked")
        if transfer:
            raise UnsupportedMediaTypeError(
                f"A body with Transfer-Encoding {shortened(transfer)} is not read; name it as Content-Encoding instead."
            )
        said = _codings(headers, "content-encoding", "identity")
        if said:
            if said not in _ENCODINGS:
                raise UnsupportedMediaTypeError(
                    f"A body with Content-Encoding {shortened(said)} is not read; send it by gzip, deflate or as it is."
                )
            length = headers.get("content-length", "")
            packed_fits = not length.isdecimal() or int(length) <= self._max_bytes
            # Its length packed is not that of what is read; but one that is too large already may be refused by it.
            gone = {b"content-encoding", b"content-length"} if packed_fits else {b"content-encoding"}
            scope["headers"] = [(name, value) for name, value in scope["headers"] if name.lower() not in gone]
            receive = _Unpacked(receive, _ENCODINGS[said], self._max_bytes)
        await self._app(scope, receive, send)


class _Unpacked:
    """receive, with plain bytes in its messages."""

    def __init__(self, receive: Receive, encoding: str, max_bytes: int) -> None:
        self._receive = receive
        self._encoding = encoding
        self._max_bytes = max_bytes
        self._unpacker: zlib._Decompress | None = None
        self._packed = b""  # came, and is not unpacked yet
        self._came = 0  # bytes, packed
        self._more = True  # to come
        self._ended = False

    async def __call__(self) -> Message:
        """Raises MalformedBodyError, or BodyTooLargeError where packed bytes that unpack to nothing have no end."""
        if self._ended:  # the reader waits for its caller to leave
            return await self._receive()
        plain = b""
        while not plain and not self._ended:
            if self._more and len(self._packed) < _HEAD_BYTES:
                message = await self._receive()
                if message["type"] != "http.request":
                    return message
                self._take(message)
            plain = self._unpack()
        return _message(plain, more=not self._ended)

    def _take(self, message: Message) -> None:
        self._packed += message.get("body", b"")
        self._more = message.get("more_body", False)
        self._came += len(message.get("body", b""))
        if self._came > self._max_bytes:
            raise BodyTooLargeError(self._max_bytes)

    def _unpack(self) -> bytes:
        """A piece; empty where more of the body must come first, or nothing is left."""
        if self._unpacker is None or self._unpacker.eof:
            if len(self._packed) < _HEAD_BYTES and self._more:
                return b""
            self._unpacker = self._next_member()
        try:
            plain = self._unpacker.decompress(self._packed, PIECE_BYTES)
            self._packed = self._unpacker.unused_data or self._unpacker.unconsumed_tail
            if not self._packed and not self._more:
                plain += self._unpacker.flush()  # of the last bytes that went in
                self._ended = True
        except zlib.error as error:
            raise MalformedBodyError(
                f"The body is not packed by {self._encoding}, as its Content-Encoding says."
            ) from error
        if self._ended and self._came and not self._unpacker.eof:
            raise MalformedBodyError(f"The body's {self._encoding} data is cut short; send all of it.")
        return plain

    def _next_member(self) -> "zlib._Decompress":
        """The same one where nothing follows it. Raises MalformedBodyError where what follows is none."""
        if self._unpacker and not self._packed:
            return self._unpacker
        if self._unpacker and not (self._encoding == "gzip" and self._packed.startswith(_MEMBER)):
            raise MalformedBodyError(f"The body goes on after the end of its {self._encoding} data; send that alone.")
        return zlib.decompressobj(_window_bits(self._encoding, self._packed))


def _codings(headers: Headers, name: str, plain: str) -> str:
    """What the header says, without the coding that leaves a body as it is."""
    said = (coding.strip().lower() for coding in ",".join(headers.getlist(name)).split(","))
    return ", ".join(coding for coding in said if coding not in {"", plain})


def _window_bits(encoding: str, head: bytes) -> int:
    """Deflate is meant to have zlib's header, and comes without it too; by its check sum the header shows."""
    if encoding == "gzip":
        return 16 + zlib.MAX_WBITS
    has_header = len(head) >= _HEAD_BYTES and head[0] & 0x0F == zlib.DEFLATED and (head[0] * 256 + head[1]) % 31 == 0
    return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS


def _message(body: bytes, *, more: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}
