from __future__ import annotations

import json
import shutil
from importlib.util import find_spec

import h5py
import numpy as np
import pytest

from datamodules import DatasetError, Store, mujoco_agent
from datamodules.collector import expert_seeds
from datamodules.local_data import find_d4rl
from datamodules.mujoco import minari_settings, prepare_mujoco
from datamodules.mujoco_names import D4RL, OWN, QUALITIES, read_name
from datamodules.readers.hdf5 import broken_chains
from rate.envs.mujoco import Mujoco, MujocoOptions
from rate.errors import ConfigError
from rate.progress import no_progress

HOPPER = MujocoOptions("hopper")
SHORT = 12  # steps of a row in a round, instead of 1000
STEPS = 4 * SHORT * mujoco_agent.ROWS
# The keys of a D4RL file of version 2.
COLUMNS = {
    "actions": ((3,), "float32"),
    "infos/action_log_probs": ((), "float32"),
    "infos/qpos": ((6,), "float64"),
    "infos/qvel": ((6,), "float64"),
    "next_observations": ((11,), "float32"),
    "observations": ((11,), "float32"),
    "rewards": ((), "float32"),
    "terminals": ((), "bool"),
    "timeouts": ((), "bool"),
}
LAYERS = ("fc0", "fc1", "last_fc", "last_fc_log_std")
POLICY = {f"policy/{layer}/{part}" for layer in LAYERS for part in ("weight", "bias")}
POLICY |= {"policy/nonlinearity", "policy/output_distribution"}

needs_agent = pytest.mark.skipif(
    not (find_spec("mujoco") and find_spec("stable_baselines3")),
    reason="MuJoCo or stable-baselines3 is not installed",
)


@pytest.mark.parametrize("number", range(12))
def test_d4rls_names_have_numbers(number):
    known = read_name(str(number))
    assert known == read_name(D4RL[number]) == read_name(D4RL[number].removesuffix("-v2"))
    assert known.settings == {"data.dataset": D4RL[number], "env.task": known.task}


def test_numbers_are_those_of_the_public_script():
    assert [D4RL[n] for n in (0, 2, 4, 6, 9, 11)] == [
        "halfcheetah-medium-v2",
        "halfcheetah-expert-v2",
        "walker2d-medium-replay-v2",
        "hopper-medium-v2",
        "halfcheetah-medium-expert-v2",
        "hopper-medium-expert-v2",
    ]
    assert len(set(D4RL)) == 12


def test_other_names():
    own = [read_name(name) for name in OWN]
    assert {(known.source, known.quality) for known in own} == {("sac", q) for q in QUALITIES}
    assert read_name("mujoco/walker2d/simple-v0").settings == {
        "data.dataset": "mujoco/walker2d/simple-v0",
        "env.task": "walker2d",
        "evaluation.target_from_data": "true",
    }


@pytest.mark.parametrize("name", ["12", "hopper-medium-v0", "mujoco/ant/expert-v0", "hoper-medium"])
def test_a_wrong_name_is_refused(name):
    with pytest.raises(ConfigError, match=f"There is no data set '{name}' of MuJoCo"):
        read_name(name)


def test_a_missing_file_is_named_with_the_ways_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DatasetError) as caught:
        prepare_mujoco(tmp_path, HOPPER, "hopper-medium-replay-v2")
    for words in (
        f"{tmp_path}/d4rl/hopper-medium-replay-v2.hdf5",
        "python scripts/download.py hopper-medium-replay-v2",
        "--dataset hopper-medium-replay-sac",
    ):
        assert words in str(caught.value)
    with pytest.raises(DatasetError, match=r"download\.py mujoco/hopper/expert-v0"):
        prepare_mujoco(tmp_path, HOPPER, "mujoco/hopper/expert-v0")
    with pytest.raises(ConfigError, match=r"is of walker2d, but env\.task is hopper"):
        prepare_mujoco(tmp_path, HOPPER, "walker2d-medium-v2")


def test_d4rls_own_names_of_files_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".d4rl" / "datasets" / "hopper_medium_replay-v2.hdf5"
    path.parent.mkdir(parents=True)
    path.touch()
    assert find_d4rl(tmp_path / "data", "hopper-medium-replay-v2") == path


def env_spec(**values):
    return json.dumps({"id": "Hopper-v4", "kwargs": {}, "additional_wrappers": [], **values})


@pytest.mark.parametrize(
    ("metadata", "settings"),
    [
        (
            {"ref_min_score": 0.0, "ref_max_score": 4000},
            {"version": "v5", "score_0": 0.0, "score_100": 4000.0},
        ),
        ({"ref_max_score": None}, {"version": "v5"}),
        ({"ref_min_score": float("nan"), "ref_max_score": 1.0}, {"version": "v5"}),
        ({"ref_min_score": 5.0, "ref_max_score": 1.0}, {"version": "v5"}),
        ({"ref_min_score": "5", "ref_max_score": 9.0}, {"version": "v5"}),
        ({"env_spec": env_spec()}, {"version": "v4"}),
        (
            {"env_spec": env_spec(kwargs={"healthy_reward": 0.5}, max_episode_steps=300)},
            {"version": "v4", "arguments": {"healthy_reward": 0.5}, "max_episode_steps": 300},
        ),
        ({"env_spec": env_spec(id="Walker2d-v4")}, {"version": "v5"}),
        ({"env_spec": "no JSON"}, {"version": "v5"}),
    ],
)
def test_the_environment_of_a_minari_data_set_is_read(tmp_path, metadata, settings):
    path = tmp_path / "minari" / "mujoco" / "hopper" / "expert-v0" / "data" / "metadata.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(metadata), encoding="utf-8")
    known = read_name("mujoco/hopper/expert-v0")
    assert minari_settings(tmp_path, known) == {"task": "hopper", **settings}
    path.write_text("{", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"metadata\.json: cannot be read"):
        minari_settings(tmp_path, known)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Data of every quality, collected by an agent that was trained for a second."""
    root, reports = tmp_path_factory.mktemp("mujoco"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mujoco_agent, "LENGTH", SHORT)
        stores = {
            quality: prepare_mujoco(
                root,
                HOPPER,
                f"hopper-{quality}-sac",
                num_episodes=13,
                agent_steps=STEPS,
                on_progress=lambda *report: reports.append(report),
            )
            for quality in QUALITIES
        }
    return root, stores, reports


def file_of(made, quality):
    root, stores, _ = made
    return root / "mujoco" / f"{stores[quality].name.removeprefix('mujoco-')}.hdf5"


@needs_agent
@pytest.mark.parametrize("quality", QUALITIES)
def test_the_files_have_d4rls_layout(made, quality):
    path = file_of(made, quality)
    with h5py.File(path) as file:
        rows = len(file["rewards"])
        for name, (shape, dtype) in COLUMNS.items():
            assert (file[name].shape, file[name].dtype) == ((rows, *shape), np.dtype(dtype)), name
        assert set(file) == {name.partition("/")[0] for name in COLUMNS} | {"metadata"}
        metadata: list[str] = []
        file["metadata"].visititems(
            lambda name, item: metadata.append(name) if isinstance(item, h5py.Dataset) else None
        )
        played = set() if quality == "medium-replay" else POLICY
        assert set(metadata) == {"algorithm", "iteration"} | played
        assert file["metadata/algorithm"][()] == b"SAC"
        positions, velocities = file["infos/qpos"][:], file["infos/qvel"][:].clip(-10, 10)
        expected = np.concatenate([positions[:, 1:], velocities], axis=1)
        np.testing.assert_allclose(file["observations"][:], expected, rtol=1e-6, atol=1e-7)
        assert (np.abs(file["actions"][:]) <= 1).all()
    assert list(broken_chains(path)) == []


@needs_agent
def test_the_stores_hold_the_files_episodes(made):
    _, stores, reports = made
    for quality, path in stores.items():
        store = Store.open(path)
        assert store.spec.options == {"task": "hopper", "version": "v4"}
        assert store.manifest["provenance"]["quality"] == quality
        with h5py.File(file_of(made, quality)) as file:
            np.testing.assert_array_equal(store.arrays["rewards"], file["rewards"][:])
        assert quality == "medium-replay" or store.num_episodes == 13
    learnt = [done for phase, done, total in reports if phase == "learning (SAC)"]
    assert learnt == list(range(0, STEPS + 1, mujoco_agent.ROWS))
    assert ("collecting", 13, 13) in reports
    assert ("packing", 13, 13) in reports


@needs_agent
def test_an_episode_can_be_played_again(made):
    """Its seed and its actions reproduce its rewards."""
    episode = Store.open(made[1]["expert"]).episode(11)
    env = Mujoco(HOPPER)
    observation, _ = env.reset(seed=expert_seeds(13, 0)[11])
    for seen, action, reward in zip(
        episode.observations, episode.actions, episode.rewards, strict=True
    ):
        np.testing.assert_array_equal(observation, seen)
        observation, again, terminated, *_ = env.step(action)
        assert np.float32(again) == reward
    assert terminated


@needs_agent
def test_existing_data_are_not_collected_again(made, monkeypatch):
    root, stores, _ = made
    monkeypatch.setattr(mujoco_agent, "Learner", None)
    settings = {"num_episodes": 13, "agent_steps": STEPS}
    assert prepare_mujoco(root, HOPPER, "hopper-medium-sac", **settings) == stores["medium"]
    before = Store.open(stores["medium"]).fingerprint
    shutil.rmtree(stores["medium"])
    assert prepare_mujoco(root, HOPPER, None, **settings) == stores["medium"]  # from the file
    assert Store.open(stores["medium"]).fingerprint == before


@needs_agent
def test_a_resumed_agent_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.setattr(mujoco_agent, "LENGTH", SHORT)
    rounds = 3

    def learner(name, rounds=rounds):
        steps = rounds * SHORT * mujoco_agent.ROWS
        return mujoco_agent.Learner(tmp_path / name, HOPPER, 5, steps)

    def stop_after_a_round():
        reported = []

        def tell(phase, done, total):
            reported.append(done)
            if done > reported[0] and done % (SHORT * mujoco_agent.ROWS) == 0:
                raise KeyboardInterrupt

        return tell

    whole = learner("whole")
    whole.learn(no_progress)
    for _ in range(rounds):
        with pytest.raises(KeyboardInterrupt):
            learner("stopped").learn(stop_after_a_round())
    again = learner("stopped")
    again.learn(stop_after_a_round())  # training is complete
    for number in range(1, rounds + 1):
        one, other = whole.experience(number), again.experience(number)
        assert all(np.array_equal(one[name], other[name]) for name in one)
        assert whole.mean_return(number) == again.mean_return(number)
    one, other = whole.policy(rounds), again.policy(rounds)
    assert all(np.array_equal(one[name], other[name]) for name in one)


@needs_agent
def test_a_damaged_round_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(mujoco_agent, "LENGTH", SHORT)
    learner = mujoco_agent.Learner(tmp_path, HOPPER, 0, 1)
    learner.learn(no_progress)
    for path in tmp_path.glob("round-0001.*"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DatasetError, match=r"round-0001\.npz: cannot be read"):
        learner.experience(1)
    with pytest.raises(DatasetError, match=r"round-0001\.pt: cannot be read"):
        learner.policy(1)


@needs_agent
def test_global_random_states_are_not_changed(tmp_path, monkeypatch):
    import random

    import torch

    monkeypatch.setattr(mujoco_agent, "LENGTH", SHORT)
    numpys = np.random.get_state
    states = numpys()[1].copy(), torch.get_rng_state(), random.getstate()
    mujoco_agent.Learner(tmp_path, HOPPER, 0, 500).learn(no_progress)
    np.testing.assert_array_equal(numpys()[1], states[0])
    assert torch.equal(torch.get_rng_state(), states[1])
    assert random.getstate() == states[2]
