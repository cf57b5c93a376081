"""What several files of the tests of fixed points use."""

import pytest
from networks import drawn

from ctd.cells import Scales
from ctd.weights import write_weights


@pytest.fixture(scope="session")
def network(tmp_path_factory):
    """A file of a small GRU's weights."""
    path = tmp_path_factory.mktemp("network") / "net.h5"
    write_weights(path, drawn("gru", 11, 12, 1, 1, Scales(2.0)), "gru")
    return str(path)
