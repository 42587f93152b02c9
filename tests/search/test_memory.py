"""What pruning needs beside the model: a few times its weights."""

import os
import subprocess
import sys

import pytest

#: Peak of resident memory above what there was before the call, in weights of the model.
SCRIPT = """
import resource, torch
from torch import nn
from tersor.search.verbs import prune

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

prune(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(2, 4), ratio=0.5)
layers = [layer for _ in range(6) for layer in (nn.Linear(1536, 1536), nn.ReLU())]
network = nn.Sequential(*layers, nn.Linear(1536, 10))
before = peak()
prune(network, torch.randn(2, 1536), ratio=0.3)
print((peak() - before) / sum(p.numel() * p.element_size() for p in network.parameters()))
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="the unit of the peak, and the allocator's switch, are Linux's"
)
def test_pruning_takes_at_most_four_times_the_weights():
    # Without a fixed threshold the allocator keeps freed blocks, and the peak is also what lies between them.
    surroundings = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=surroundings, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) <= 4
