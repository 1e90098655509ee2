"""Every way in which data can break the agreement.

SchemaError
├── ImageError                 one image cannot become the model's input
│   ├── UnreadableImageError   not an image, damaged, or cut short
│   ├── UnsupportedImageError  a real image of a kind that has no single right reading
│   └── ImageTooLargeError     claims more pixels than allowed
├── MetricsError               labels and probabilities that do not fit together
├── PromotionError             promoted.json cannot be used
└── BundleError                a bundle that must not answer
    ├── MissingFileError       a file that the manifest names, or the manifest, is not there
    ├── ManifestError          manifest.json is not what artifacts/README.md says
    ├── FormatVersionError     written in a format that this release does not read
    ├── HashMismatchError      a file is not the one that was written
    ├── ShapeMismatchError     the graph's inputs or outputs are not the manifest's
    └── GoldenMismatchError    a golden sample is not answered as expected
"""


class SchemaError(Exception):
    """The message is one sentence for the person who sent the data."""


class ImageError(SchemaError):
    """One image cannot become the model's input."""


class UnreadableImageError(ImageError):
    """Not an image, damaged, or cut short."""


class UnsupportedImageError(ImageError):
    """A real image, of a kind that has no single right reading here."""


class ImageTooLargeError(ImageError):
    """Claims more pixels than allowed; nothing was decoded."""


class MetricsError(SchemaError):
    """Labels and probabilities do not fit together."""


class PromotionError(SchemaError):
    """promoted.json cannot be used."""


class BundleError(SchemaError):
    """A bundle that must not answer."""


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
