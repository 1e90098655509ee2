"""Small images for the examples in OpenAPI. They can be sent to any model."""

# A handwritten-looking seven, 8x8 grey.
PNG_BASE64 = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAJElEQVR42l3JsQ0AIBCAwNP9d8bijYU0JMBlaQTq5qb1VrD9HP4mBgHUZZ3BAAAA"
    "AElFTkSuQmCC"
)

# The same drawing, smaller, as rows of grey pixels.
PIXELS = [
    [0, 0, 0, 0, 0, 0],
    [0, 255, 255, 255, 255, 0],
    [0, 0, 0, 128, 255, 0],
    [0, 0, 64, 255, 64, 0],
    [0, 0, 128, 255, 0, 0],
    [0, 0, 0, 0, 0, 0],
]
