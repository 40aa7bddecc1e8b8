from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules import DatasetError, Episode, write_store
from datamodules.trajectories import TrajectoryDataModule
from rate.envs.frame_stack import stacked_space
from rate.envs.spec import EnvironmentSpec


class Recorder(LightningModule):
    """Records its windows; raises an error at a chosen batch."""

    def __init__(self, fail_at=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.fail_at = fail_at
        self.seen = []

    def training_step(self, batch, batch_idx):
        if len(self.seen) == self.fail_at:
            raise KeyboardInterrupt
        shape = (batch.mask.shape[1], int(batch.mask.sum()))
        self.seen.append((shape, batch.observations[:, 0].tolist()))
        return (self.weight * batch.rewards.mean()).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Curriculum(Callback):
    """Starts the next stage every four batches."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        done = trainer.datamodule.batches_done
        if done in (4, 8):
            trainer.datamodule.set_curriculum(1 + done // 4, start_step=done)


def make_data(store, **changes):
    settings = {"batch_size": 3, "context_length": 3, "segments": 3, "seed": 5} | changes
    return TrajectoryDataModule(store.path, **settings)


def make_trainer(max_steps, callbacks=(), **changes):
    return Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        callbacks=list(callbacks),
        **changes,
    )


@pytest.fixture(autouse=True)
def _warnings_of_lightning():
    with warnings.catch_warnings():
        # Our loader must not provoke advice about workers, lengths or resuming.
        warnings.filterwarnings(
            "error", message=".*(num_workers|__len__|not resumable|dataloader).*"
        )
        warnings.filterwarnings("ignore", message=".*logging interval.*")
        yield


@pytest.mark.parametrize("batches_per_epoch", [None, 1, 4, 1000])
def test_the_order_of_batches_does_not_depend_on_epochs(store, batches_per_epoch):
    data = make_data(store, batches_per_epoch=batches_per_epoch)
    module = Recorder()
    make_trainer(11).fit(module, datamodule=data)
    sampler = data.make_sampler(None)
    wanted = [sampler.batch(index).observations[:, 0].tolist() for index in range(11)]
    assert [seen for _, seen in module.seen] == wanted
    assert data.batches_done == 11


def test_accumulated_gradients_do_not_change_the_order(store):
    module = Recorder()
    make_trainer(4, accumulate_grad_batches=2).fit(module, datamodule=make_data(store))
    plain = Recorder()
    make_trainer(8).fit(plain, datamodule=make_data(store))
    assert module.seen == plain.seen


def test_a_stage_begins_with_the_very_next_batch(store):
    data = make_data(store)
    data.set_curriculum(1, start_step=0)
    module = Recorder()
    make_trainer(12, [Curriculum()]).fit(module, datamodule=data)
    assert [shape[0] for shape, _ in module.seen] == [3] * 4 + [6] * 4 + [9] * 4
    for segments, first in ((1, 0), (2, 4), (3, 8)):
        sampler = data.make_sampler(segments)
        assert int(data.store.lengths[sampler.episodes(0)].max()) <= segments * 3
        wanted = [sampler.batch(index).observations[:, 0].tolist() for index in range(4)]
        assert [seen for _, seen in module.seen[first : first + 4]] == wanted
    assert data.stage == (3, 8)


def test_the_last_stage_of_random_windows_samples_longer_episodes(store):
    data = make_data(store, segments=2, mode="random")
    drawn = {segments: set() for segments in (1, 2)}
    for segments, seen in drawn.items():
        sampler = data.make_sampler(segments)
        for index in range(20):
            seen.update(data.store.lengths[sampler.episodes(index)].tolist())
    assert max(drawn[1]) == 3
    assert drawn[2] == set(data.store.lengths.tolist())
    first = make_data(store, segments=2, mode="start").make_sampler(2)
    assert max(data.store.lengths[first.episodes(0)]) <= 6


@pytest.mark.parametrize("batches_per_epoch", [None, 5, 1000])
@pytest.mark.parametrize("stop", [1, 2, 4, 5, 8, 10])
def test_resuming_continues_with_the_next_batch(store, tmp_path, stop, batches_per_epoch):
    def fit(max_steps, checkpoint=None):
        data = make_data(store, batches_per_epoch=batches_per_epoch)
        if checkpoint is None:
            data.set_curriculum(1, start_step=0)
        module = Recorder()
        saver = ModelCheckpoint(
            tmp_path,
            every_n_train_steps=1,
            save_top_k=-1,
            filename="{step}",
            save_weights_only=False,
        )
        trainer = make_trainer(max_steps, [Curriculum(), saver])
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
        return module.seen

    whole = fit(12)
    checkpoint = tmp_path / f"step={stop}.ckpt"  # the end of a batch, sometimes of an epoch
    assert torch.load(checkpoint, weights_only=True)["TrajectoryDataModule"]["batches_done"] == stop
    assert whole[stop:] == fit(12, checkpoint)


@pytest.mark.parametrize("fail_at", [0, 3, 7])
def test_a_batch_whose_step_was_interrupted_is_repeated(store, tmp_path, fail_at):
    class SaveOnInterrupt(Callback):
        def on_exception(self, trainer, module, exception):
            trainer.save_checkpoint(tmp_path / "interrupted.ckpt")

    data = make_data(store, batches_per_epoch=3)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        make_trainer(10, [SaveOnInterrupt()]).fit(Recorder(fail_at), datamodule=data)
    resumed, whole = Recorder(), Recorder()
    make_trainer(10).fit(
        resumed,
        datamodule=make_data(store, batches_per_epoch=3),
        ckpt_path=tmp_path / "interrupted.ckpt",
    )
    make_trainer(10).fit(whole, datamodule=make_data(store))
    assert resumed.seen == whole.seen[fail_at:]


@pytest.mark.parametrize(
    ("changes", "name"), [({"seed": 6}, "seed"), ({"batch_size": 4}, "batch_size")]
)
def test_resuming_with_another_order_is_refused(store, changes, name):
    with pytest.raises(ValueError, match=f"made with {name} = .*, but it is now"):
        make_data(store, **changes).load_state_dict(make_data(store).state_dict())


def test_resuming_on_other_data_is_refused(store, tmp_path, make_store):
    other = make_store(tmp_path / "other", [9, 9, 9])
    with pytest.raises(ValueError, match="made with data = "):
        make_data(other).load_state_dict(make_data(store).state_dict())


def test_processes_share_the_batch(store):
    alone = make_data(store, batch_size=4)
    data = [make_data(store, batch_size=4) for _ in range(2)]
    done = SimpleNamespace(total=SimpleNamespace(processed=3))
    for rank, part in enumerate(data):
        loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=done))
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        part.trainer = SimpleNamespace(
            global_rank=rank, world_size=2, fit_loop=loop, strategy=strategy
        )
        part.setup("fit")
    found = torch.cat([part.next_batch().observations for part in data])
    assert torch.equal(found, alone.make_sampler(None).batch(3).observations)
    data[0].trainer.world_size = 3
    with pytest.raises(ValueError, match="3 processes do not divide it; use 3"):
        data[0].setup("fit")


def test_settings_that_do_not_fit_the_data_are_refused(store, tmp_path):
    with pytest.raises(DatasetError, match=r"window of 1[25] steps"):
        make_data(store, segments=5)
    with pytest.raises(DatasetError, match="not a trajectory store"):
        TrajectoryDataModule(tmp_path / "absent", 3, 3, 3, 0)
    with pytest.raises(ValueError, match=r"segments \(0\)"):
        make_data(store, segments=0)
    with pytest.raises(ValueError, match="batches_per_epoch"):
        make_data(store, batches_per_epoch=0)
    with pytest.raises(ValueError, match="a stage of 0 segments"):
        make_data(store).set_curriculum(0, 0)
    with pytest.raises(DatasetError, match=r"window of 1[25] steps"):
        make_data(store).set_curriculum(5, 0)


def test_data_of_another_environment_are_refused(store, spec):
    make_data(store, spec=spec)
    other = EnvironmentSpec("maze", spec.observation_space, spaces.Discrete(4), 1.0)
    with pytest.raises(DatasetError, match=r"the action_space of the data is Box.*maze has Disc"):
        make_data(store, spec=other)


def test_checkpoints_hold_the_limits_only_if_set(store):
    plain, limited = make_data(store), make_data(store, min_length=4)
    assert "min_length" not in plain.state_dict()
    assert "min_return" not in plain.state_dict()
    assert (plain.num_episodes, limited.num_episodes) == (8, 6)
    assert (plain.batches_per_epoch, limited.batches_per_epoch) == (2, 2)
    make_data(store, min_length=4).load_state_dict(limited.state_dict())
    with pytest.raises(ValueError, match="made with min_length = None, but it is now 4"):
        limited.load_state_dict(plain.state_dict())
    with pytest.raises(ValueError, match="made with min_length = 4, but it is now None"):
        plain.load_state_dict(limited.state_dict())
    with pytest.raises(DatasetError, match="a return of at least 99"):
        make_data(store, min_return=99.0)


def test_training_may_observe_one_key_of_a_dictionary(tmp_path):
    vector = spaces.Box(-1, 1, (2,), np.float32)
    privileged = spaces.Box(-1, 1, (1,), np.float32)
    whole = EnvironmentSpec(
        "privileged",
        spaces.Dict({"vector": vector, "privileged": privileged}),
        spaces.Discrete(3),
        1.0,
    )
    observations = {
        "vector": np.ones((3, 2), np.float32),
        "privileged": np.zeros((3, 1), np.float32),
    }
    episode = Episode(observations, np.zeros(3, int), np.zeros(3), True, False)
    store = write_store([episode], tmp_path / "s", whole, {})
    without = EnvironmentSpec("privileged", vector, spaces.Discrete(3), 1.0)
    data = make_data(store, spec=without, segments=1)
    assert data.next_batch().observations.shape == (3, 3, 2)
    assert data.store.spec == without
    assert set(make_data(store, spec=whole, segments=1).next_batch().observations) == {
        "vector",
        "privileged",
    }
    with pytest.raises(DatasetError, match="the observation_space of the data is Dict"):
        make_data(store, spec=EnvironmentSpec("x", spaces.Discrete(2), spaces.Discrete(3), 1.0))


def test_a_model_trains_on_stacks_of_stored_frames(tmp_path):
    """The store holds frames and the privileged state, as collectors record them."""
    frame = spaces.Box(0, 255, (6, 5), np.uint8)
    whole = spaces.Dict({"image": frame, "privileged": spaces.Box(0, 1, (2,), np.float32)})
    recorded = EnvironmentSpec("film", whole, spaces.Discrete(2), 1.0)
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (9, 6, 5), dtype=np.uint8)
    states, steps = np.zeros((9, 2), np.float32), np.zeros(9, np.int64)
    episode = Episode({"image": images, "privileged": states}, steps, np.ones(9), True, False)
    store = write_store([episode], tmp_path / "film", recorded, {})
    spec = EnvironmentSpec("film", stacked_space(frame, 3), recorded.action_space, 1.0, {}, 3)
    data = make_data(store, batch_size=1, segments=2, spec=spec, mode="random")

    class Model(Recorder):
        def training_step(self, batch, batch_idx):
            for number, step in enumerate(batch.timesteps[0, batch.mask[0]].tolist()):
                wanted = [images[t] if t >= 0 else 0 * images[0] for t in range(step - 2, step + 1)]
                np.testing.assert_array_equal(batch.observations[0, number], np.stack(wanted))
            return super().training_step(batch, batch_idx)

    module = Model()
    make_trainer(8).fit(module, datamodule=data)
    assert len(module.seen) == 8
    assert data.next_batch().observations.shape == (1, 8, 6, 5)
    two = write_store([episode, episode], tmp_path / "films", recorded, {})
    data = make_data(two, batch_size=1, segments=2, spec=spec, mode="random", held_out=0.5)
    batches = list(data.held_out_batches(torch.device("cpu"), 1, 10))
    assert sum(int(batch.mask.sum()) for batch in batches) == 9
    for batch in batches:
        model = Model()
        model.seen = []
        model.training_step(batch, 0)


def test_checkpoints_hold_the_sampling(store):
    data = make_data(store)
    state = data.state_dict()
    assert not {"sampling", "frame_stack"} & set(state)  # as in checkpoints of earlier versions
    with pytest.raises(ValueError, match="sampling = None, but it is now 'steps'"):
        make_data(store, sampling="steps").load_state_dict(state)


def test_a_checkpoint_with_older_random_windows_is_refused(store):
    data = make_data(store, mode="random")
    state = data.state_dict()
    make_data(store, mode="random").load_state_dict(state)
    del state["random_windows"]  # as in versions without windows cut at both ends
    with pytest.raises(ValueError, match="random_windows = None, but it is now 2"):
        data.load_state_dict(state)
    assert "random_windows" not in make_data(store).state_dict()


@pytest.mark.parametrize(("context", "segments"), [(4, 3), (3, 2), (1, 4), (5, 2)])
def test_the_last_segment_is_never_empty_in_every_window(
    make_store, tmp_path, context, segments
) -> None:
    before = context * (segments - 1)  # steps of the segments before the last
    long = make_store(tmp_path / "long", [before + 1, 2])
    data = make_data(long, batch_size=2, context_length=context, segments=segments)
    assert data.make_sampler(None).batch(0).mask[:, before:].any()
    short = make_store(tmp_path / "short", [before, 2])
    with pytest.raises(DatasetError, match=f"a window of {context * segments} steps"):
        make_data(short, batch_size=2, context_length=context, segments=segments)


def test_a_single_segment_may_be_as_long_as_the_observations(make_store, tmp_path) -> None:
    store = make_store(tmp_path / "short", [4, 2])
    make_data(store, batch_size=2, context_length=5, segments=1)
    with pytest.raises(DatasetError, match="a window of 6 steps"):
        make_data(store, batch_size=2, context_length=6, segments=1)
