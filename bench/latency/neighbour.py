"""A process that keeps one core busy with what inference does: multiply and stream memory."""

import torch

torch.set_num_threads(1)
left, right = torch.randn(512, 512), torch.randn(512, 512)
while True:
    left @ right
