"""Batches are equal whether they come from the device, the host or a prefetch thread."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from lightning.pytorch import Callback, LightningModule, Trainer

from datamodules import data_device
from datamodules.data_device import choose_data_device
from datamodules.episodes import DatasetError, Episode
from datamodules.prefetch import Prefetcher
from datamodules.sampler import WindowSampler
from datamodules.step_arrays import StepArrays
from datamodules.store import Store
from datamodules.trajectories import TrajectoryDataModule
from datamodules.writing import write_store
from rate.batch import Batch
from rate.envs.spec import EnvironmentSpec

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
SPEC = EnvironmentSpec(
    "rooms",
    spaces.Dict(image=spaces.Box(0, 255, (5, 4), np.uint8), privileged=spaces.Box(0, 1, (2,))),
    spaces.Discrete(3),
    1.0,
)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Episodes of images, some shorter than a window."""

    def episodes():
        rng = np.random.default_rng(0)
        for length in (5, 12, 9, 3, 12, 7, 12):
            yield Episode(
                observations={
                    "image": rng.integers(0, 256, (length, 5, 4), dtype=np.uint8),
                    "privileged": rng.random((length, 2), dtype=np.float32),
                },
                actions=rng.integers(0, 3, length),
                rewards=rng.standard_normal(length),
                terminated=True,
                truncated=False,
            )

    return write_store(
        episodes(), tmp_path_factory.mktemp("rooms") / "store", SPEC, {"source": "a test"}
    )


def assert_same(found: Batch, expected: Batch) -> None:
    """Asserts that batches are equal bit for bit, and of the same types."""
    for name, part in vars(expected).items():
        mine = vars(found)[name]
        pairs = [(mine[k], part[k]) for k in part] if isinstance(part, dict) else [(mine, part)]
        for one, other in pairs:
            assert (one is None) == (other is None)
            if other is not None:
                assert one.dtype == other.dtype
                assert torch.equal(one, other), name


@pytest.mark.parametrize("mode", ["start", "random"])
@pytest.mark.parametrize("frame_stack", [1, 3])
def test_batches_on_a_device_are_those_of_the_files(rooms, mode, frame_stack) -> None:
    """The CPU is used as the device."""
    arrays = StepArrays.of(rooms, rooms.arrays["observations/privileged"])
    settings = {"batch_size": 4, "window": 8, "seed": 1, "mode": mode, "frame_stack": frame_stack}
    files = WindowSampler(rooms, **settings, arrays=arrays)
    device = WindowSampler(rooms, **settings, arrays=arrays.to(CPU))
    for index in range(6):
        assert_same(device.batch(index), files.batch(index))
    images = device.batch(0).observations
    assert isinstance(images, dict)
    assert images["image"].dtype == torch.uint8


def test_large_arrays_arrive_in_pieces(rooms, monkeypatch) -> None:
    monkeypatch.setattr("datamodules.device_copies._PIECE", 100)
    arrays = StepArrays.of(rooms)
    for name, tensor in arrays.to(CPU).arrays.items():
        np.testing.assert_array_equal(tensor.numpy(), arrays.arrays[name])


class TestChoice:
    @pytest.fixture(autouse=True)
    def _free(self, monkeypatch) -> None:
        monkeypatch.setattr(data_device, "free_memory", lambda device: 8 * 2**30)

    @pytest.mark.parametrize(
        ("size", "wanted", "on_device", "reason"),
        [
            (4, "auto", True, "4.00 GiB of data fit into 50% of the 8.00 GiB that are free"),
            (5, "auto", False, "5.00 GiB of data are more than 50% of the 8.00 GiB"),
            (1, "host", False, "on the host, as training.data_device says"),
            (7, "device", True, "on cuda:0, as training.data_device says"),
        ],
    )
    def test_data_that_fit_are_kept_on_the_device(self, size, wanted, on_device, reason) -> None:
        choice = choose_data_device(size * 2**30, GPU, wanted)
        assert choice.on_device == on_device
        assert reason in choice.reason
        assert "\n" not in choice.reason

    def test_data_that_exceed_the_device_are_refused(self) -> None:
        with pytest.raises(DatasetError, match=r"9.00 GiB of data are more than the 8.00 GiB"):
            choose_data_device(9 * 2**30, GPU, "device")

    def test_a_device_of_unknown_memory_gets_batches_from_the_host(self, monkeypatch) -> None:
        monkeypatch.setattr(data_device, "free_memory", lambda device: None)
        assert not choose_data_device(1, torch.device("mps"), "auto").on_device


class TestPrefetcher:
    def test_prefetched_batches_that_are_not_used_are_dropped(self, rooms) -> None:
        first = WindowSampler(rooms, batch_size=3, window=8, seed=1)
        second = WindowSampler(rooms, batch_size=2, window=4, seed=1)
        prefetcher = Prefetcher(CPU)
        for sampler, index in [(first, 0), (first, 1), (first, 5), (second, 6), (second, 6)]:
            assert_same(prefetcher.batch(sampler, index), sampler.batch(index))
        prefetcher.close()

    def test_the_next_batch_is_prefetched(self) -> None:
        made = {number: threading.Event() for number in range(3)}
        sampler = SimpleNamespace(batch=lambda number: made[number].set() or number)
        prefetcher = Prefetcher(CPU)
        assert prefetcher.batch(sampler, 0) == 0
        assert made[1].wait(10)
        assert not made[2].is_set()
        prefetcher.close()

    def test_errors_are_raised_when_their_batch_is_requested(self) -> None:
        def batch(number: int) -> int:
            if number == 1:
                raise DatasetError("a damaged file")
            return number

        prefetcher = Prefetcher(CPU)
        sampler = SimpleNamespace(batch=batch)
        assert prefetcher.batch(sampler, 0) == 0
        with pytest.raises(DatasetError, match="a damaged file"):
            prefetcher.batch(sampler, 1)
        assert prefetcher.batch(sampler, 2) == 2
        prefetcher.close()


class Recorder(LightningModule):
    """Learns nothing and records its batches."""

    def __init__(self, moves_on_at: int | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[Batch] = []

    def training_step(self, batch: Batch, index: int) -> None:
        self.seen.append(batch)
        self.optimizers().step()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.0)


class Stages(Callback):
    """Starts the next curriculum stage after three batches."""

    def on_train_batch_end(self, trainer, module, outputs, batch, index) -> None:
        if trainer.global_step == 3:
            trainer.datamodule.set_curriculum(2, trainer.datamodule.batches_done)


def seen(rooms: Store, data_device: str, ahead: bool, monkeypatch) -> list[Batch]:
    data = TrajectoryDataModule(
        rooms.path, 4, 4, 3, seed=2, mode="random", data_device=data_device, batches_per_epoch=4
    )
    if ahead:
        monkeypatch.setattr(
            data, "set_data_device", lambda device: setattr(data, "_prefetcher", Prefetcher(device))
        )
    module = Recorder()
    Trainer(
        accelerator="cpu",
        max_steps=8,
        max_epochs=-1,
        callbacks=[Stages()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, datamodule=data)
    assert data._prefetcher is None
    return module.seen


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("data_device", "ahead"), [("device", False), ("host", True)])
def test_training_sees_the_same_batches_from_device_and_host(
    rooms, data_device, ahead, monkeypatch
) -> None:
    """With a curriculum stage that starts between two batches, and epochs that end."""
    expected = seen(rooms, "auto", False, monkeypatch)
    found = seen(rooms, data_device, ahead, monkeypatch)
    assert [batch.num_steps for batch in found] == [12] * 3 + [8] * 5
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)


@pytest.mark.gpu
@pytest.mark.parametrize("data_device", ["device", "host"])
def test_a_gpu_gets_the_batches_of_the_host(rooms, data_device) -> None:
    data = TrajectoryDataModule(rooms.path, 4, 4, 3, seed=2, data_device=data_device)
    expected = [data.make_sampler(None).batch(index) for index in range(20)]
    data.set_data_device(GPU)
    data._sampler = data.make_sampler(None)
    for index, batch in enumerate(expected):
        data._batches_done = index
        found = data.next_batch()
        assert found.mask.device == GPU
        torch.cuda._sleep(1_000_000)  # the device is slow, so that batches queue up
        assert_same(found.to(CPU), batch)
    data.close()
