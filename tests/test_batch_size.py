r"""internal_batch_size of a method: no result changes with it, and a search decodes no more than it must."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toys import Rotated, RowClassifier, images

from captum_dcf import DiffeomorphicCounterfactual, Status


class Narrow(RowClassifier):
    r"""Runs out of memory above a number of images, and remembers the numbers it was asked for."""

    def __init__(self, most: int, error: BaseException) -> None:
        super().__init__()
        self.most = most
        self.error = error
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise self.error
        return super().forward(x)


class Counting(Rotated):
    r"""Counts the images it decodes and encodes."""

    def __init__(self, most: int = 10**9, error: BaseException | None = None) -> None:
        super().__init__()
        self.most, self.error = most, error
        self.decoded = self.encoded = 0

    def encode(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise self.error
        self.encoded += len(x)
        return super().encode(x)

    def decode(self, z: Tensor) -> Tensor:
        self.decoded += len(z)
        return super().decode(z)


ERRORS = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: not enough memory: you tried to allocate"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes. Error code 12"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
    MemoryError(),
]
each_error = pytest.mark.parametrize(
    "error", ERRORS, ids=["cuda", "cpu on Windows", "cpu on Linux", "mps", "C43 Python"]
)


@pytest.mark.parametrize("most", [1, 20])
@each_error
@pytest.mark.parametrize("of", ["model", "encoder"])
def test_out_of_memory_halves_the_window_and_changes_no_result(of: str, most: int, error: BaseException):
    x = images(70)
    expected = DiffeomorphicCounterfactual(RowClassifier().eval(), Rotated()).counterfactual(x, 2)
    model = Narrow(most, error).eval() if of == "model" else RowClassifier().eval()
    generator = Counting(most, error) if of == "encoder" else Rotated()
    result = DiffeomorphicCounterfactual(model, generator).counterfactual(x, 2, internal_batch_size="auto")
    assert expected.reached.all()
    assert torch.equal(result.status, expected.status)
    assert torch.equal(result.steps, expected.steps)
    torch.testing.assert_close(result.counterfactuals, expected.counterfactuals)


@pytest.mark.parametrize("internal_batch_size", [None, 4, "auto"])
@each_error
def test_an_error_that_no_window_avoids_arrives_as_it_is(error: BaseException, internal_batch_size: int | str | None):
    method = DiffeomorphicCounterfactual(Narrow(0, error).eval(), Rotated())
    with pytest.raises(type(error)) as caught:
        method.attribute(images(8), target=2, internal_batch_size=internal_batch_size)
    assert caught.value is error


def test_other_errors_are_not_tried_again():
    narrow = Narrow(0, KeyError("no such layer")).eval()
    with pytest.raises(KeyError):
        DiffeomorphicCounterfactual(narrow, Rotated()).attribute(images(8), target=2, internal_batch_size="auto")
    assert narrow.sizes == [8]


@pytest.mark.parametrize(
    ("size", "error"), [("big", ValueError), (0, ValueError), (-3, ValueError), (True, TypeError), (2.0, TypeError)]
)
def test_other_batch_sizes_are_refused(size: object, error: type[Exception], method: DiffeomorphicCounterfactual):
    with pytest.raises(error, match=r"internal_batch_size must be .* received"):
        method.attribute(images(2), target=1, internal_batch_size=size)


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("internal_batch_size", [None, 5, "auto"])
def test_the_work_is_one_decode_per_example_and_step_and_six_to_refine(
    refine: bool, internal_batch_size: int | str | None
):
    generator = Counting()
    method = DiffeomorphicCounterfactual(RowClassifier().eval(), generator)
    result = method.counterfactual(images(12), 2, refine=refine, internal_batch_size=internal_batch_size)
    found = int((result.status == Status.FOUND).sum())
    assert found == 12
    assert len(result.steps.unique()) > 1
    assert generator.encoded == 12
    assert generator.decoded == 12 + int(result.steps.sum()) + (6 * found if refine else 0)


def test_one_pass_through_the_model_per_decode_and_one_on_the_inputs():
    passes: list[int] = []
    classifier = RowClassifier().eval()
    classifier.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
    result = DiffeomorphicCounterfactual(classifier, Rotated()).counterfactual(images(12), 2)
    assert sum(passes) == 12 + 12 + int(result.steps.sum())


class OnceTooSmall(RowClassifier):
    r"""Runs out of memory once, when some of the first batch have ended."""

    failed = False

    def forward(self, x: Tensor) -> Tensor:
        if len(x) < 16 and not self.failed:
            self.failed = True
            raise ERRORS[0]
        return super().forward(x)


def test_progress_is_not_counted_twice_when_a_batch_is_tried_again(capsys: pytest.CaptureFixture[str]):
    classifier = OnceTooSmall().eval()
    method = DiffeomorphicCounterfactual(classifier, Rotated())
    method.attribute(images(16), target=2, internal_batch_size="auto", show_progress=True)
    assert classifier.failed
    assert "16/16" in capsys.readouterr().err.split("\r")[-1]
