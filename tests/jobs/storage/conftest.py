"""Where a test keeps its store in the bucket."""

import pytest


@pytest.fixture
def address(s3, request):
    """An address in the bucket that no other test has."""
    del s3
    return f"s3://lab/{request.node.name}.zarr"
