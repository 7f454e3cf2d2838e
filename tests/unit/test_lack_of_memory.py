"""What says that memory ran out, and who is asked before something makes do with less."""

from __future__ import annotations

import threading

import pytest
import torch

from dit_acceleration_pack.acceleration.lack_of_memory import (
    can_be_freed,
    is_out_of_memory,
    recovery,
)


class LateError(RuntimeError):
    """As ``torch.AcceleratorError``, which only a device can raise."""

    error_code = 2


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 GB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        LateError("a kernel launched before failed"),
    ],
)
def test_a_lack_of_memory_is_known_by_every_name(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("No available kernel. Aborting execution."),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("out of resource: shared memory, Required: 131072"),
        ValueError("out of memory of names"),
    ],
)
def test_other_errors_are_no_lack_of_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_a_real_lack_of_memory_on_the_cpu() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)


def test_somebody_can_help_only_above_and_in_the_same_thread() -> None:
    held = [True]
    elsewhere: list[bool] = []
    assert not can_be_freed()
    with recovery(lambda: held[0]):
        assert can_be_freed()
        thread = threading.Thread(target=lambda: elsewhere.append(can_be_freed()))
        thread.start()
        thread.join()
        with recovery(lambda: False):
            assert not can_be_freed()
        assert can_be_freed()
        held[0] = False
        assert not can_be_freed()
    with pytest.raises(ValueError, match="inside"), recovery(lambda: True):
        raise ValueError("inside")
    assert not can_be_freed() and elsewhere == [False]
