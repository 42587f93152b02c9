import pytest
import torch

from tersor.errors import MeasurementError
from tersor.measurement.cuda import compare_on_gpu, cuda_missing, event_seconds, graphed

needs_gpu = pytest.mark.skipif(bool(cuda_missing()), reason="needs an NVIDIA GPU")


@pytest.mark.skipif(not cuda_missing(), reason="there is a GPU")
@pytest.mark.parametrize("use", [graphed, event_seconds, lambda call: compare_on_gpu(call, call)])
def test_without_a_gpu_it_is_said(use):
    with pytest.raises(MeasurementError, match="no NVIDIA GPU"):
        use(lambda: None)


@needs_gpu
def test_twice_the_work_takes_about_twice_as_long():
    x = torch.randn(4096, 4096, device="cuda")
    result = compare_on_gpu(graphed(lambda: (x @ x) @ x), graphed(lambda: x @ x))
    assert 1.7 < result.speedup.low <= result.speedup.high < 2.3


@needs_gpu
def test_what_cannot_be_captured_is_called_as_it_is():
    x = torch.ones(4, device="cuda")

    def waits_for_the_host():
        return x.sum().item()

    assert graphed(waits_for_the_host) is waits_for_the_host
