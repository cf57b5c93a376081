"""Files of tests/data made again by the libraries that made them.

These are slow too, so that -m "not slow" leaves them out.
"""

import subprocess

import h5py
import numpy as np
import pytest
from places import DATA, load_script


def assert_same_file(found, stored, atol):
    with h5py.File(found) as a, h5py.File(stored) as b:
        assert set(a) == set(b)
        for group in b:
            assert set(a[group]) == set(b[group])
            for name in b[group]:
                np.testing.assert_allclose(
                    a[group][name], b[group][name], rtol=0, atol=atol, err_msg=f"{group}/{name}"
                )


@pytest.mark.frameworks
@pytest.mark.slow
def test_torch_vectors_again(tmp_path, monkeypatch):
    """To 1e-12: ten steps of another version's or another processor's sums."""
    pytest.importorskip("torch", reason="uv run --group frameworks pytest -m frameworks")
    module = load_script("make_torch_cells")
    # It writes beside itself.
    monkeypatch.setattr(module, "__file__", str(tmp_path / "make_torch_cells.py"))
    module.main()
    assert_same_file(tmp_path / "torch_cells.h5", DATA / "torch_cells.h5", 1e-12)


@pytest.mark.frameworks
@pytest.mark.slow
def test_nlb_vectors_again(tmp_path):
    """In an environment of its own, which uv makes: nlb_tools asks for a pandas of 2021."""
    script = DATA / "make_nlb_bits.py"
    command = ["uv", "run", "--script", str(script), str(tmp_path / "again.h5")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same_file(tmp_path / "again.h5", DATA / "nlb_bits.h5", 1e-12)
