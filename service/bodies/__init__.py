"""Request bodies, one file a media type: bytes -> images, within limits, with what OpenAPI says of it.

The two endpoints differ only in whether the images come with labels.
"""
