from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captum_dcf.data.files import read_images


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path):
    values = np.linspace(0, 65535, 16).round().astype(np.uint16).reshape(4, 4)
    Image.fromarray(values).save(tmp_path / "deep.png")
    [image] = read_images([tmp_path / "deep.png"], (1, 4, 4))
    np.testing.assert_allclose(image[0].numpy(), values / 65535, atol=0.5 / 255 + 1e-6)


def test_values_of_unknown_range_are_refused(tmp_path: Path):
    Image.fromarray(np.full((4, 4), 7.5, dtype=np.float32)).save(tmp_path / "floats.tiff")
    with pytest.raises(ValueError, match="'F' values of unknown range"):
        read_images([tmp_path / "floats.tiff"], (1, 4, 4))
