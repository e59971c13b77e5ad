from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch
from idx import idx, write_mnist
from torch import Tensor

from captum_dcf.data import mnist, mnist_sample


def test_the_sample_has_a_hundred_digits_of_each_class():
    images, labels = mnist_sample()
    assert images.shape == (1000, 1, 28, 28)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert labels.tolist() == [label for label in range(10) for _ in range(100)]
    assert images.min() == 0
    assert images.max() == 1
    # Whole grey levels, as they were scanned.
    assert torch.equal((images * 255).round() / 255, images)


def test_the_sample_shows_digits():
    images, labels = mnist_sample()
    # The mean of a class is nearest to its own images more often than not, and no image is there twice.
    flat = images.flatten(1)
    means = torch.stack([flat[labels == label].mean(0) for label in range(10)])
    nearest = torch.cdist(flat, means).argmin(1)
    assert (nearest == labels).float().mean() > 0.75
    assert len(flat.unique(dim=0)) == 1000


def test_each_call_gives_images_of_its_own():
    images, _ = mnist_sample()
    images.zero_()
    assert mnist_sample()[0].max() == 1


def test_a_torchvision_root_is_read(tmp_path: Path):
    pytest.importorskip("torchvision")
    written = write_mnist(tmp_path, train=12, test=5)
    for train in (True, False):
        images, labels = mnist(tmp_path, train=train)
        assert images.dtype == torch.float32
        assert torch.equal((images * 255).to(torch.uint8).squeeze(1), written[train][0])
        assert torch.equal(labels, written[train][1].long())


@pytest.mark.parametrize("missing", ["everything", "one file"])
def test_a_root_without_mnist_is_named(tmp_path: Path, missing: str):
    pytest.importorskip("torchvision")
    if missing == "one file":
        write_mnist(tmp_path, train=2, test=2)
        (tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=str(tmp_path)) as caught:
        mnist(tmp_path)
    assert "four idx files" in str(caught.value)
    assert str(Path("MNIST") / "raw") in str(caught.value)


IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.mark.parametrize("file", [IMAGES, LABELS])
@pytest.mark.parametrize("how", ["cut off", "too long", "short header", "empty", "compressed"])
def test_a_damaged_file_is_named(tmp_path: Path, file: str, how: str):
    pytest.importorskip("torchvision")
    write_mnist(tmp_path, train=2, test=4)
    path = tmp_path / "MNIST" / "raw" / file
    data = path.read_bytes()
    damaged = {
        "cut off": data[:-3],
        "too long": data + b"x",
        "short header": data[:6],
        "empty": b"",
        "compressed": gzip.compress(data),
    }
    path.write_bytes(damaged[how])
    with pytest.raises(ValueError, match=f"{file} is damaged"):
        mnist(tmp_path, train=False)


def overwrite(root: Path, file: str, values: Tensor) -> None:
    (root / "MNIST" / "raw" / file).write_bytes(idx(values.to(torch.uint8)))


@pytest.mark.parametrize(
    ("file", "values", "received"),
    [
        (LABELS, torch.zeros(3), "received 3 for 4"),
        (LABELS, torch.tensor([0, 1, 2, 250]), f"{LABELS}.*from 0 to 9, received 250"),
        (IMAGES, torch.zeros(4, 14, 56), rf"{IMAGES}.*28×28, received \(14, 56\)"),
    ],
)
def test_files_that_do_not_hold_digits_are_refused(tmp_path: Path, file: str, values: Tensor, received: str):
    pytest.importorskip("torchvision")
    write_mnist(tmp_path, train=2, test=4)
    overwrite(tmp_path, file, values)
    with pytest.raises(ValueError, match=received):
        mnist(tmp_path, train=False)


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("torchvision")
    write_mnist(tmp_path, train=2, test=4)

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("torchvision.datasets.mnist.read_image_file", refuse)
    with pytest.raises(PermissionError, match="Permission denied"):
        mnist(tmp_path, train=False)
