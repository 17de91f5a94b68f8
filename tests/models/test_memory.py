"""What the libraries of accelerators say when their memory runs out."""

from __future__ import annotations

import pytest
import torch

from rewardlab.models.memory import is_out_of_memory, within_memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "mps", "cublas", "cudnn", "python"],
)
def test_every_device_and_library_has_words_of_its_own(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("words", ["mat1 and mat2 shapes cannot be multiplied", "CUBLAS_STATUS_EXECUTION_FAILED"])
def test_other_errors_are_not_taken_for_memory(words: str) -> None:
    assert not is_out_of_memory(RuntimeError(words))


def test_work_begins_anew_with_less_until_it_fits_or_there_is_no_less() -> None:
    size = 8

    def work(fits: int) -> int:
        if size > fits:
            raise MemoryError
        return size

    def use_less() -> None:
        nonlocal size
        if size == 1:
            raise RuntimeError("there is no less")
        size //= 2

    assert within_memory(lambda: work(3), use_less) == 2
    with pytest.raises(RuntimeError, match="no less"):
        within_memory(lambda: work(0), use_less)
    with pytest.raises(ZeroDivisionError):
        within_memory(lambda: 1 // 0, use_less)
