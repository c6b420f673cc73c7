"""The trainer does Algorithm 1: compared with a loop written by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader
from torch import Tensor
from torch.nn import functional as F

from multiad_med.networks import FeatureDiscriminator, MultiAD
from multiad_med.testing.networks import tiny_multiad
from multiad_med.training import DistillationTrainer

SCALARS = (
    "loss",
    "loss_distillation",
    "loss_adversarial",
    "loss_discriminator",
    "discriminator_accuracy",
)


def _batches(count: int = 3) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [{"image": torch.rand(4, 3, 64, 64, generator=generator)} for _ in range(count)]


def _trainer(
    network: MultiAD,
    discriminator: FeatureDiscriminator | None,
    *,
    batches: int = 3,
    **kwargs: object,
) -> DistillationTrainer:
    # SGD, because Adam makes of rounding in a gradient near 0 a step of full length.
    options: dict[str, object] = {"adversarial_weight": 0.1, "adversarial_warmup": 1, **kwargs}
    return DistillationTrainer(
        "cpu",
        2,
        _batches(batches),
        network,
        torch.optim.SGD(network.student.parameters(), 0.1),
        discriminator=discriminator,
        discriminator_optimizer=None
        if discriminator is None
        else torch.optim.SGD(discriminator.parameters(), 0.05),
        **options,
    )


def _algorithm_1(network: MultiAD, discriminator: FeatureDiscriminator, epochs: int) -> None:
    """Algorithm 1 with plain torch: lambda 0.1, 0 in the first epoch."""
    optimizer = torch.optim.SGD(network.student.parameters(), 0.1)
    optimizer_d = torch.optim.SGD(discriminator.parameters(), 0.05)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    for epoch in range(epochs):
        for batch in _batches(1):
            x = (batch["image"] - mean) / std
            with torch.no_grad():
                real = network.teacher(x)
            network.student.train()
            fake = network.student(x, real)

            discriminator.train()
            both = [torch.cat([r, f.detach()]) for r, f in zip(real, fake, strict=True)]
            p_real, p_fake = torch.sigmoid(discriminator(both)).chunk(2)
            loss_d = -(p_real.log().mean() + (1 - p_fake).log().mean())
            optimizer_d.zero_grad()
            loss_d.backward()
            optimizer_d.step()

            distances = []
            for r, f in zip(real, fake, strict=True):
                cosine = (F.normalize(r, dim=1) * F.normalize(f, dim=1)).sum(dim=1)
                distances.append((1 - cosine).mean())
            loss = sum(distances) / len(distances)
            discriminator.eval()
            if epoch > 0:
                loss = loss - 0.1 * torch.sigmoid(discriminator(fake)).log().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def test_training_equals_algorithm_1_written_by_hand() -> None:
    torch.manual_seed(0)
    network = tiny_multiad()
    discriminator = FeatureDiscriminator(network.channels, dropout=0.0)
    by_hand, discriminator_by_hand = copy.deepcopy(network), copy.deepcopy(discriminator)
    # A step with lambda 0 and one with 0.1; in more of them rounding would grow.
    _trainer(network, discriminator, batches=1).run()
    _algorithm_1(by_hand, discriminator_by_hand, epochs=2)
    for ours, theirs in ((network, by_hand), (discriminator, discriminator_by_hand)):
        for (name, a), b in zip(
            ours.state_dict().items(), theirs.state_dict().values(), strict=True
        ):
            assert torch.allclose(a.float(), b.float(), atol=1e-6, equal_nan=True), name


def test_teacher_is_bit_identical_after_training_and_student_is_not() -> None:
    network = tiny_multiad()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    _trainer(network, FeatureDiscriminator(network.channels)).run()
    after = network.state_dict()
    for key, value in before.items():
        if key.startswith(("teacher.", "fusion.")):
            assert torch.equal(value, after[key]), key
    assert not torch.equal(
        before["student.backbone.stem.weight"], after["student.backbone.stem.weight"]
    )


def test_discriminator_stands_still_while_the_student_moves() -> None:
    network = tiny_multiad()
    discriminator = FeatureDiscriminator(network.channels)
    trainer = _trainer(network, discriminator, adversarial_warmup=0)
    states = []

    def remember(engine: DistillationTrainer) -> None:
        states.append({k: v.clone() for k, v in discriminator.state_dict().items()})

    from monai.engines import IterationEvents

    trainer.add_event_handler(IterationEvents.LOSS_COMPLETED, remember)
    trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, remember)
    trainer.run()
    assert states
    for before, after in zip(states[::2], states[1::2], strict=True):
        assert all(torch.equal(v, after[k]) for k, v in before.items())


@pytest.mark.parametrize("with_discriminator", [True, False])
def test_all_scalars_are_always_reported(with_discriminator: bool) -> None:
    network = tiny_multiad()
    discriminator = FeatureDiscriminator(network.channels) if with_discriminator else None
    trainer = _trainer(network, discriminator)
    seen: list[dict[str, float]] = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda engine: seen.append({k: float(engine.state.output[0][k]) for k in SCALARS}),
    )
    trainer.run()
    assert len(seen) == 6
    for scalars in seen[:3]:  # warm-up: lambda is 0
        assert scalars["loss"] == scalars["loss_distillation"]
        assert 0 <= scalars["discriminator_accuracy"] <= 1
    if with_discriminator:
        last = seen[-1]
        expected = last["loss_distillation"] + 0.1 * last["loss_adversarial"]
        assert last["loss"] == pytest.approx(expected, abs=1e-6)


def test_gradient_clip_bounds_the_students_gradient() -> None:
    network = tiny_multiad()
    norms: list[float] = []

    class Watching(torch.optim.SGD):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            gradients = [p.grad.flatten() for g in self.param_groups for p in g["params"]]
            norms.append(float(torch.cat(gradients).norm()))
            super().step(closure)

    DistillationTrainer(
        "cpu",
        1,
        _batches(),
        network,
        Watching(network.student.parameters(), 0.1),
        gradient_clip=1e-3,
    ).run()
    assert max(norms) <= 1e-3 * (1 + 1e-4)


def test_bf16_autocast_trains_in_float32_weights() -> None:
    network = tiny_multiad()
    trainer = _trainer(
        network,
        FeatureDiscriminator(network.channels),
        amp=True,
        amp_kwargs={"dtype": torch.bfloat16},
    )
    trainer.run()
    assert not trainer.grad_scaler.is_enabled()
    assert all(p.dtype is torch.float32 for p in network.parameters())
    assert all(torch.isfinite(p).all() for p in network.parameters())


def test_fp16_uses_a_gradient_scaler() -> None:
    trainer = _trainer(tiny_multiad(), None, amp=True, amp_kwargs={"dtype": torch.float16})
    assert trainer.grad_scaler.is_enabled()


def test_half_a_discriminator_and_a_thawed_teacher_are_refused() -> None:
    network = tiny_multiad()
    with pytest.raises(ValueError, match="both discriminator and discriminator_optimizer"):
        DistillationTrainer(
            "cpu",
            1,
            _batches(),
            network,
            torch.optim.Adam(network.student.parameters()),
            discriminator=FeatureDiscriminator(network.channels),
        )
    with pytest.raises(ValueError, match="parameters of the teacher"):
        DistillationTrainer("cpu", 1, _batches(), network, torch.optim.Adam(network.parameters()))


def test_metatensor_batches_of_a_monai_loader_train() -> None:
    from monai.data import MetaTensor

    network = tiny_multiad()
    data = [{"image": MetaTensor(torch.rand(1, 64, 64))} for _ in range(4)]
    DistillationTrainer(
        "cpu",
        1,
        DataLoader(data, batch_size=2),
        network,
        torch.optim.Adam(network.student.parameters()),
    ).run()
