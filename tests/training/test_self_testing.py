"""The self-test tells a model that sees from one that does not, and what each reacts to."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from multiad_med.card import ModelCard
from multiad_med.scoring import Level, NormalScores
from multiad_med.training import SelfTestHandler, record_self_test, self_test

SIDE = 40
SIZES = [0.01, 0.02, 0.05, 0.1, 0.25]


class Double(nn.Module):
    """Stands for a network: a map of what a function says of grey images."""

    def __init__(self, look: Any, scores: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.look = look
        self.register_buffer("score_fraction", torch.tensor(0.0))
        self.card = ModelCard(levels={Level.SLICE: NormalScores(scores, 0.05)})
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return self.look(x[:, :1])


def from_middle(x: Tensor) -> Tensor:
    """|x - median| to three digits: an even image has 0 everywhere, whatever its light."""
    return (x - x.flatten(1).median(dim=1).values.view(-1, 1, 1, 1)).abs().mul(1000).round() / 1000


def nothing(x: Tensor) -> Tensor:
    return torch.full_like(x, 0.3)


def darkness(x: Tensor) -> Tensor:
    return (1 - x.mean(dim=(2, 3), keepdim=True)).expand_as(x)


def batches(count: int = 12, *, masked: bool = False) -> list[dict[str, Tensor]]:
    """Even images at levels of 0.45 to 0.55, four at a time."""
    levels = torch.linspace(0.45, 0.55, count).view(-1, 1, 1, 1)
    images = levels.expand(-1, 3, SIDE, SIDE).contiguous()
    foreground = torch.zeros(count, 1, SIDE, SIDE, dtype=torch.bool)
    foreground[..., 10:30, 10:30] = True
    return [
        {"image": images[i : i + 4], **({"foreground": foreground[i : i + 4]} if masked else {})}
        for i in range(0, count, 4)
    ]


def auroc(network: Double, **which: Any) -> float:
    return self_test(network, batches()).slice_auroc(**which)


def test_a_network_that_sees_intensity_finds_it_at_every_size() -> None:
    found = self_test(Double(from_middle), batches())
    for size in SIZES:
        assert found.slice_auroc(kind="intensity", size=size) == 1.0
        assert found.worst_auroc(kind="intensity", size=size) == 1.0
        assert found.slice_auroc(kind="fine noise", size=size) == 1.0
        # Even images, smeared, are what they were.
        assert found.slice_auroc(kind="blur", size=size) == pytest.approx(0.5)
    assert all(f.pixel_auroc == 1.0 for f in found.findings if f.kind == "intensity")
    assert not found.near_chance
    assert not found.reacts_to_light
    assert found.images == 12
    assert (found.sizes, len(found.kinds)) == (SIZES, 5)


def test_a_network_that_sees_nothing_is_at_chance() -> None:
    found = self_test(Double(nothing), batches())
    assert {f.slice_auroc for f in found.findings} == {0.5}
    assert {f.worst_auroc for f in found.findings} == {0.5}
    assert {f.pixel_auroc for f in found.findings} == {0.5}
    assert {r.auroc for r in found.reactions} == {0.5}
    assert found.near_chance


def test_a_network_that_looks_at_light_reacts_to_it_and_to_nothing_else() -> None:
    found = self_test(Double(darkness), batches())
    told = {r.nuisance: r.reacts for r in found.reactions}
    assert told == {
        "darker": True,
        "brighter": False,
        "gamma up": True,
        "gamma down": False,
        "blur": False,
        "shift": False,
    }
    assert found.reacts_to_light
    # Darkness, which an anomaly may bring too, is no sign of one where the light changes.
    darker = next(r for r in found.reactions if r.nuisance == "darker")
    small = found.worst_auroc(size=0.02)
    assert small == pytest.approx(1 - darker.auroc, abs=0.05)
    assert small < 0.3 < 0.4 < found.slice_auroc(size=0.02)


def test_shares_above_the_threshold_are_told_where_there_is_one() -> None:
    # At a rate of 5 % with 19 normals the highest score is the threshold: darkness of 0.555.
    found = self_test(Double(darkness, (0.555, *[0.4] * 18)), batches())
    told = {r.nuisance: r.flagged for r in found.reactions}
    # 1 - 0.9 x > 0.555 for x < 0.494; of levels 0.45 + 0.1 i / 11 the first five.
    assert told["darker"] == pytest.approx(5 / 12)
    assert told["brighter"] == 0
    assert found.flagged == 0
    assert self_test(Double(darkness), batches()).flagged is None


def test_only_the_foreground_counts() -> None:
    def outside(x: Tensor) -> Tensor:
        seen = from_middle(x)
        seen[..., 7:33, 7:33] = 0  # what a shift by 3 may bring inside, too
        return seen + 0.1

    found = self_test(Double(outside), batches(masked=True))
    assert {f.slice_auroc for f in found.findings} == {0.5}
    inside = self_test(Double(from_middle), batches(masked=True))
    assert inside.slice_auroc(kind="intensity") == 1.0


def test_the_seed_alone_decides_and_nothing_else_is_drawn() -> None:
    noisy = [{"image": torch.rand(4, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))}]
    torch.manual_seed(1)
    first = self_test(Double(from_middle), noisy, seed=3)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)
    assert self_test(Double(from_middle), noisy, seed=3) == first
    assert self_test(Double(from_middle), noisy, seed=4) != first


def test_it_costs_32_times_64_images_at_most_spread_over_all() -> None:
    shown: list[Tensor] = []

    def look(x: Tensor) -> Tensor:
        shown.append(x[:, 0, 0, 0])
        return from_middle(x)

    network = Double(look)
    found = self_test(network, batches(200))
    assert found.images == 64
    assert network.seen == 32 * 64
    unchanged = torch.cat(shown)[:64]
    # Of each run of 200 / 64 images the middle one: levels rise from end to end.
    assert float(unchanged[0]) < 0.455
    assert float(unchanged[-1]) > 0.545
    assert float(unchanged.diff().max()) <= 4 * 0.1 / 199 + 1e-6


def test_images_without_foreground_are_left_out_and_none_at_all_is_told() -> None:
    part, empty = batches(4, masked=True)[0], batches(4, masked=True)[0]
    empty["foreground"] = torch.zeros_like(empty["foreground"])
    assert self_test(Double(from_middle), [empty, part]).images == 4
    with pytest.raises(ValueError, match="needs held-out normal images"):
        self_test(Double(from_middle), [empty])


def test_the_card_keeps_it_and_the_log_tells_it(caplog: pytest.LogCaptureFixture) -> None:
    network = Double(darkness)
    with caplog.at_level(logging.INFO, logger="multiad_med"):
        found = record_self_test(network, batches())
    assert network.card.self_test == found
    messages = [(r.levelname, r.getMessage()) for r in caplog.records]
    assert messages == [
        ("INFO", found.summary),
        *(("WARNING", warning) for warning in found.warnings()),
    ]
    assert len(messages) == 3  # near chance, and reacts to light


def test_tensorboard_shows_the_auroc_over_the_size(tmp_path: Path) -> None:
    network = Double(from_middle)
    handler = SelfTestHandler(network, batches(), log_dir=str(tmp_path))
    handler(Engine(lambda engine, batch: None))
    events = EventAccumulator(str(tmp_path)).Reload()
    found = network.card.self_test
    assert found is not None
    shown = {e.step: e.value for e in events.Scalars("self_test/all")}
    assert shown == pytest.approx(
        {round(100 * size): found.slice_auroc(size=size) for size in SIZES}
    )
    assert events.Scalars("self_test/foreign_patch")[0].step == 1
    assert events.Scalars("self_test/reaction_gamma_up")[0].value == pytest.approx(0.5, abs=0.1)
