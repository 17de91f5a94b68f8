"""What the libraries of accelerators say when their memory runs out."""

from __future__ import annotations

import pytest

from rewardlab.models.memory import is_out_of_memory


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: out of memory",
    ],
)
def test_libraries_have_words_of_their_own(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words))


@pytest.mark.parametrize("words", ["mat1 and mat2 shapes cannot be multiplied", "CUBLAS_STATUS_EXECUTION_FAILED"])
def test_other_errors_are_not_taken_for_memory(words: str) -> None:
    assert not is_out_of_memory(RuntimeError(words))
