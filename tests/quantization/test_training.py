import copy

import torch
import torch.nn.functional as F

from tersor.exporting.integers import lower
from tersor.planning.plan import Plan, Quantize
from tersor.quantization.fake_quantize import FakeQuantize
from tersor.quantization.grid import QSpec
from tersor.quantization.quantize import quantize, sites


def all_sites(model, inputs, bits):
    return Plan(tuple(Quantize(site, weight_bits=bits) for site in sites(model, inputs)))


def distill(student, teacher, x, steps, lr=2e-3):
    optimizer = torch.optim.Adam(student.parameters(), lr=lr)
    for _ in range(steps):
        loss = F.mse_loss(student(x), teacher(x).detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def test_what_was_trained_is_what_the_file_computes(conv_net, images, as_file, db):
    small = quantize(conv_net, (images[:2],), [(images,)], plan=all_sites(conv_net, (images[:2],), 3))
    small.train()
    with torch.no_grad():
        before = float(F.mse_loss(small(images), conv_net(images)))
    after = distill(small, conv_net, images, steps=25)
    small.eval()
    assert after < 0.5 * before
    with torch.no_grad():
        assert torch.equal(lower(small)(images), small(images))
        assert db(small(images), as_file(small, (images[:2],)).run(images)) >= 40


def test_every_parameter_and_every_step_learns(conv_net, images):
    small = quantize(conv_net, (images[:2],), [(images,)])
    F.mse_loss(small(images), torch.zeros(32, 10)).backward()
    missing = [name for name, p in small.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing


def test_a_step_that_crosses_zero_stays_a_step():
    quantizer = FakeQuantize(QSpec(0, 255))
    with torch.no_grad():
        quantizer.step.fill_(-0.1)
    assert torch.allclose(quantizer(torch.tensor([0.2])), torch.tensor([0.2]))


def test_the_gradient_of_the_step_is_that_of_lsq():
    x = torch.tensor([0.24, -0.9, 5.0, -5.0], dtype=torch.float64, requires_grad=True)
    quantizer = FakeQuantize(QSpec(-7, 7, symmetric=True)).double()
    quantizer.set_grid(torch.tensor(0.5, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64))
    quantizer(x).sum().backward()
    slopes = torch.tensor([0 - 0.48, -2 + 1.8, 7.0, -7.0]).sum() / (4 * 7) ** 0.5
    assert torch.allclose(quantizer.step.grad, slopes.double())
    assert x.grad.tolist() == [1, 1, 0, 0]


def test_a_copy_trains_without_the_original(perceptron, rows):
    small = quantize(perceptron, (rows[:2],), [(rows,)], scheme="static")
    twin, before = copy.deepcopy(small), small(rows).detach()
    distill(twin, lambda x: torch.zeros(len(x), 4), rows, steps=3, lr=0.1)
    assert torch.equal(small(rows).detach(), before)
    assert not torch.equal(twin(rows).detach(), before)
