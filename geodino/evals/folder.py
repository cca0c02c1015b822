"""Image folders as suites; they are labelled sets, see :mod:`geodino.data.labelled.image_folder`."""

from geodino.data.labelled.image_folder import (
    IMAGE_SUFFIXES,
    FolderSuite,
    Split,
    duplicates_across,
    find_suite,
)

__all__ = ["IMAGE_SUFFIXES", "FolderSuite", "Split", "duplicates_across", "find_suite"]
