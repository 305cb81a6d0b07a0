"""A limit on the size of files, for a block of a test."""

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def file_limit(most: int) -> Iterator[None]:
    """Files of this process may have *most* bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
