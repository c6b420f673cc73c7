"""Training by preset dinomaly's parts does what Dinomaly does: a loop written by hand.

Loss, gradients of easy places, clipping and optimiser are written out here from the paper's description
and the optimiser's (Guo et al., CVPR 2025; Wortsman et al., 2023).
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multiad_med.networks import DinoFeatures, HardGradientLoss, MultiAD, TokenDecoder
from multiad_med.networks.vision_transformer import VisionTransformerSize
from multiad_med.training import DistillationEvaluator, DistillationTrainer, StableAdamW

LR, DECAY = 0.002, 1e-4
EPS = 1e-5
"""Dinomaly's 1e-10 would make a full step of a gradient that is nothing but rounding."""
BETAS = (0.9, 0.999)
CLIP = 0.1
RAMP = 4
"""Steps until nine tenths of the places are easy; 1,000 in the paper."""


def _network() -> MultiAD:
    teacher = DinoFeatures(
        VisionTransformerSize(64, 4, 2, registers=4, grid=4), recentred=False
    ).eval()
    student = TokenDecoder(64, 2, narrow=None, blocks=4, dropout=0.0)
    return MultiAD(teacher, student, stages=(1, 2), fusion="sum")


def _batches(count: int) -> list[dict[str, Tensor]]:
    random = torch.Generator().manual_seed(1)
    return [{"image": torch.rand(3, 3, 56, 70, generator=random)} for _ in range(count)]


def _loss(teacher: list[Tensor], student: list[Tensor], step: int) -> Tensor:
    easy = min(0.9 * step / RAMP, 0.9)
    total = torch.zeros(())
    for t, s in zip(teacher, student, strict=True):
        cosine = (F.normalize(t, dim=1) * F.normalize(s, dim=1)).sum(dim=1, keepdim=True)
        distance = 1 - cosine.detach()
        hardest = distance.flatten().sort(descending=True).values
        least = hardest[int(distance.numel() * (1 - easy)) - 1]
        factor = torch.where(distance < least, 0.1, 1.0).expand_as(s)
        # Gradients are scaled where the student's features enter the loss.
        s = factor * s + ((1 - factor) * s).detach()
        a, b = t.flatten(1), s.flatten(1)
        whole = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
        total = total + (1 - whole).mean() / len(teacher)
    return total


def _by_hand(network: MultiAD, steps: int) -> list[float]:
    """Train the network's student; the losses."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    student: nn.Module = network.student
    weights = list(student.parameters())
    moments = [[torch.zeros_like(w) for _ in range(3)] for w in weights]
    losses = []
    for step, batch in enumerate(_batches(steps)):
        x = (batch["image"] - mean) / std
        with torch.no_grad():
            real = network.teacher(x)
        loss = _loss([real[0], real[1]], student(x, real), step)
        gradients = torch.autograd.grad(loss, weights)
        norm = torch.stack([g.detach().norm() for g in gradients]).norm()
        gradients = [g * min(1.0, CLIP / (float(norm) + 1e-6)) for g in gradients]
        losses.append(loss.item())
        count = step + 1
        with torch.no_grad():
            for w, g, (first, second, largest) in zip(weights, gradients, moments, strict=True):
                first.copy_(BETAS[0] * first + (1 - BETAS[0]) * g)
                second.copy_(BETAS[1] * second + (1 - BETAS[1]) * g**2)
                largest.copy_(torch.maximum(largest, second))
                root = largest.sqrt() / (1 - BETAS[1] ** count) ** 0.5 + EPS
                size = max(1.0, float(((g / root) ** 2).mean() ** 0.5))
                w.mul_(1 - LR * DECAY)
                w.sub_(LR / size * first / (1 - BETAS[0] ** count) / root)
    return losses


def _trainer(network: MultiAD, loss: HardGradientLoss, steps: int) -> DistillationTrainer:
    optimiser = StableAdamW(network.student.parameters(), LR, weight_decay=DECAY, eps=EPS)
    return DistillationTrainer(
        "cpu", 1, _batches(steps), network, optimiser, loss, gradient_clip=CLIP
    )


@pytest.mark.parametrize("steps", [1, 3])
def test_training_is_the_loop_by_hand(steps: int) -> None:
    torch.manual_seed(0)
    network = _network()
    by_hand = copy.deepcopy(network)
    start = copy.deepcopy(network.student.state_dict())
    trainer = _trainer(network, HardGradientLoss(warmup=RAMP), steps)
    trainer.run()
    losses = _by_hand(by_hand, steps)
    assert float(trainer.state.output[0]["loss"]) == pytest.approx(losses[-1], abs=1e-6)
    expected = by_hand.student.state_dict()
    for name, value in network.student.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=0, msg=name)
    moved = [float((v - start[k]).abs().max()) for k, v in expected.items()]
    assert sum(m > 1e-3 for m in moved) > 0.5 * len(moved)


def test_validation_moves_neither_the_ramp_nor_what_the_loss_has_learned() -> None:
    network, loss = _network(), HardGradientLoss()
    _trainer(network, loss, 2).run()
    assert int(loss.steps) == 2
    DistillationEvaluator("cpu", _batches(3), network, loss_function=loss).run()
    assert int(loss.steps) == 2
    _trainer(network, loss, 1).run()
    assert int(loss.steps) == 3


def test_a_teacher_and_a_student_train_in_mixed_precision() -> None:
    network = _network()
    optimiser = StableAdamW(network.student.parameters(), LR)
    trainer = DistillationTrainer(
        "cpu",
        1,
        _batches(2),
        network,
        optimiser,
        HardGradientLoss(warmup=0),
        gradient_clip=CLIP,
        amp=True,
        amp_kwargs={"dtype": torch.bfloat16},
    )
    trainer.run()
    assert all(w.isfinite().all() for w in network.student.parameters())
