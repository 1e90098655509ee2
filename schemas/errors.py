"""Exceptions for invalid images, labels, bundles and promotion records.

SchemaError
├── ImageError                 an image cannot be converted to the model's input
│   ├── UnreadableImageError   not an image, damaged, or cut short
│   ├── UnsupportedImageError  a valid image of an unsupported or ambiguous kind
│   └── ImageTooLargeError     its header declares more pixels than the limit
├── MetricsError               labels and probabilities do not match
├── PromotionError             promoted.json cannot be used
└── BundleError                a bundle must not serve
    ├── MissingFileError       the manifest, or a file that it lists, is missing
    ├── ManifestError          manifest.json does not follow artifacts/README.md
    ├── FormatVersionError     this release does not read the bundle's format version
    ├── HashMismatchError      a file has changed since it was written
    ├── ShapeMismatchError     the graph's inputs or outputs differ from the manifest
    └── GoldenMismatchError    a golden sample does not produce the expected probabilities
"""


class SchemaError(Exception):
    """Base class. The message is written for the person who supplied the data."""


class ImageError(SchemaError):
    """An image cannot be converted to the model's input."""


class UnreadableImageError(ImageError):
    """The data is not an image, or the image is damaged or cut short."""


class UnsupportedImageError(ImageError):
    """A valid image of an unsupported kind, or of a kind that can be read in more than one way."""


class ImageTooLargeError(ImageError):
    """The header declares more pixels than the limit; nothing was decoded."""


class MetricsError(SchemaError):
    """Labels and probabilities do not match in shape, number or range."""


class DefaultModelError(SchemaError):
    """default.json cannot be used."""


class PromotionError(SchemaError):
    """promoted.json cannot be used."""


class BundleError(SchemaError):
    """A bundle must not serve."""


class MissingFileError(BundleError):
    pass


class ManifestError(BundleError):
    pass


class FormatVersionError(BundleError):
    pass


class HashMismatchError(BundleError):
    pass


class ShapeMismatchError(BundleError):
    pass


class GoldenMismatchError(BundleError):
    pass
