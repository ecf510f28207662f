"""What a user reads about an error of the system."""

import errno

import pytest

from bench.system.errors import as_unwritable


@pytest.mark.parametrize(
    ("number", "path", "line"),
    [
        (errno.EACCES, "x.yaml", "x.yaml cannot be read or written: Permission denied"),
        (errno.EIO, "x.yaml", "x.yaml cannot be read or written: Input/output error"),
        (errno.EROFS, "x.yaml", "x.yaml cannot be written: Read-only file system"),
        (errno.EIO, None, "the output cannot be written: Input/output error"),
        (errno.ENAMETOOLONG, "x.yaml", "x.yaml cannot be read or written: File name too long"),
        (errno.ENOENT, "x.yaml", None),
    ],
)
def test_an_error_says_no_more_than_the_system_does(
    number: int, path: str | None, line: str | None
) -> None:
    error = as_unwritable(OSError(number, "", path))
    assert (error and str(error)) == line
