from __future__ import annotations

import collections
import gzip
import os
import pickle

import numpy as np
import pytest

from datamodules.episodes import DatasetError
from datamodules.formats import open_source
from datamodules.options import Options
from datamodules.readers.trajectories import open_trajectories
from datamodules.source import ValidEpisodes, raise_error
from rate.envs.mujoco import MujocoOptions, mujoco_spec
from tests.datamodules.samples import LENGTHS, columns, write_trajectories


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_episodes(tmp_path, protocol):
    source = open_trajectories(write_trajectories(tmp_path / "x.pkl", protocol=protocol))
    for number, episode in enumerate(ValidEpisodes(source)):
        wanted = columns(LENGTHS[number], number)
        for name in ("observations", "actions", "rewards"):
            np.testing.assert_array_equal(getattr(episode, name), wanted[name])
        assert (episode.terminated, episode.truncated) == (number % 2 == 0, number % 2 == 1)
        np.testing.assert_array_equal(episode.last_observation, wanted["next_observations"][-1])
    assert (source.num_episodes, source.num_steps) == (3, sum(LENGTHS))
    assert [len(episode) for episode in source.read(1, pytest.fail)] == list(LENGTHS[1:])


def test_discrete_actions_and_no_next_observations(tmp_path):
    def change(episodes):
        for number, episode in enumerate(episodes):
            del episode["next_observations"]
            episode["actions"] = np.full(len(episode["actions"]), number)

    source = open_trajectories(write_trajectories(tmp_path / "x.pkl", change=change))
    assert source.spec.action_space.n == 3
    assert next(source.read(0, pytest.fail)).last_observation is None


def test_the_name_of_a_task_gives_its_bounds(tmp_path):
    def change(episodes):
        episodes[1]["actions"][2, 1] = -1.5

    named = open_trajectories(write_trajectories(tmp_path / "hopper-medium-v2.pkl", change=change))
    assert named.spec.name == "mujoco-hopper"
    episodes = ValidEpisodes(named)
    assert [episode.actions.min() >= -1 for episode in episodes] == [True, True, True]
    assert (episodes.clipped.steps, episodes.clipped.furthest) == (1, -1.5)
    unknown = open_trajectories(write_trajectories(tmp_path / "x.pkl", change=change))
    assert unknown.spec.action_space.low.tolist() == [-1, -1.5, -1]


def put(number, key, value):
    def change(episodes):
        if value is None:
            del episodes[number][key]
        else:
            episodes[number][key] = value

    return change


LATE = np.array([0, 0, 1, 0, 0, 0], bool)
BAD = {
    "missing": (put(1, "rewards", None), "episode 1: there are no rewards; .*--zero-rewards"),
    "short": (put(1, "rewards", np.zeros(5)), "episode 1: rewards has 5 steps, but actions has 6"),
    "next": (put(1, "next_observations", np.zeros((7, 11))), "next_observations has 7 steps"),
    "late": (
        put(1, "terminals", LATE),
        "episode 1: terminals: step 2 is an end.*to step 5",
    ),
    "flag": (put(1, "terminals", np.full(6, 2)), "episode 1: terminals is 2 at row 0"),
    "list": (put(1, "rewards", ["a"] * 6), "episode 1: rewards is a list of str, not of numbers"),
    "columns": (put(1, "terminals", np.zeros((6, 2))), r"terminals have shape \(6, 2\)"),
    "scalar": (put(1, "rewards", np.array(1.0)), "rewards has 0 steps"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_episodes_are_named_or_skipped(tmp_path, name):
    change, message = BAD[name]
    path = write_trajectories(tmp_path / "x.pkl", change=change)
    with pytest.raises(DatasetError, match=message):
        list(open_trajectories(path).read(0, raise_error))
    bad = []
    source = open_trajectories(path)
    assert [len(episode) for episode in source.read(0, bad.append)] == [4, 3]
    assert len(bad) == 1
    assert source.num_episodes == 3


@pytest.mark.parametrize(
    ("key", "message"),
    [("rewards", "rewards: the value at step 1"), ("observations", "observations: the value at")],
)
def test_values_that_are_not_finite_are_named_with_their_step(tmp_path, key, message):
    def change(episodes):
        episodes[2][key][1] = np.nan

    source = open_trajectories(write_trajectories(tmp_path / "x.pkl", change=change))
    with pytest.raises(DatasetError, match=rf"x\.pkl, episode 2: {message}"):
        list(ValidEpisodes(source))


def test_an_empty_list_or_other_contents(tmp_path):
    path = tmp_path / "x.pkl"
    for contents, message in (([], "no episodes"), ([1, 2], "episode 0: not a dictionary")):
        path.write_bytes(pickle.dumps(contents))
        with pytest.raises(DatasetError, match=message):
            open_trajectories(path)


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_no_code_of_a_pickle_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_trajectories(tmp_path / "x.pkl", change=put(2, "rewards", Evil()))
    with pytest.raises(DatasetError, match=r"asks for 'posix\.system'"):
        open_trajectories(path)
    assert not (tmp_path / "pwned").exists()


def made():
    """Three episodes; the third is not ended by the environment."""
    episodes = [columns(length, number) for number, length in enumerate((4, 6, 3))]
    episodes[2]["terminals"][:] = False
    return episodes


def rename(names):
    return [{names.get(key, key): value for key, value in e.items()} for e in made()]


def extra(value):
    return [{**e, "other": value, "env_name": "hopper", "info": {"a": [1, {}]}} for e in made()]


def rows(episode):
    return [
        {key: value[step].tolist() for key, value in episode.items()}
        for step in range(len(episode["actions"]))
    ]


def flat():
    arrays = {key: np.concatenate([e[key] for e in made()]) for key in made()[0]}
    return arrays | {"timeouts": np.isin(np.arange(13), [9, 12])}


SINGULAR = {"observations": "observation", "actions": "action", "rewards": "reward"}
SHORT = {"observations": "obs", "actions": "acts", "rewards": "r", "terminals": "done"}
DIALECTS = {
    "singular": lambda: rename({**SINGULAR, "terminals": "terminal"}),
    "dones": lambda: rename({"terminals": "dones"}),
    "short": lambda: rename(SHORT),
    "gymnasium": lambda: [
        {**e, "terminated": e["terminals"], "truncated": ~e["terminals"] & (np.arange(n) == n - 1)}
        for e, n in zip(made(), (4, 6, 3), strict=True)
    ],
    "extra texts": lambda: extra("a text"),
    "extra numbers": lambda: extra(3.5),
    "extra list of dictionaries": lambda: extra([{"x": 1.0}] * 6),
    "extra objects": lambda: extra(np.array([{"x": 1.0}, None], dtype=object)),
    "extra array of another length": lambda: extra(np.arange(99)),
    "lists": lambda: [{key: value.tolist() for key, value in e.items()} for e in made()],
    "lists of arrays": lambda: [{key: list(value) for key, value in e.items()} for e in made()],
    "a list with a dictionary a step": lambda: [rows(e) for e in made()],
    "dictionary by number": lambda: dict(enumerate(made())),
    "dictionary by name": lambda: {f"episode_{n}": e for n, e in enumerate(made())},
    "tuple": lambda: tuple(made()),
    "defaultdicts": lambda: [collections.defaultdict(list, e) for e in made()],
    "with something about them": lambda: {"version": 1, "trajectories": made()},
    "a pair with something about them": lambda: (made(), {"version": 1}),
    "flat": flat,
    "flat lists": lambda: {key: value.tolist() for key, value in flat().items()},
    "flat defaultdict": lambda: collections.defaultdict(list, flat()),
    "lists of episodes": lambda: {key: [e[key] for e in made()] for key in made()[0]},
    "columns": lambda: [
        {**e, "rewards": e["rewards"][:, None], "terminals": e["terminals"][:, None].astype("f4")}
        for e in made()
    ],
    "a flag an episode": lambda: [{**e, "terminals": bool(e["terminals"][-1])} for e in made()],
}


@pytest.mark.parametrize("opener", [open, gzip.open])
@pytest.mark.parametrize("name", DIALECTS)
def test_dialects(tmp_path, name, opener):
    path = tmp_path / ("x.pkl.gz" if opener is gzip.open else "x.pkl")
    with opener(path, "wb") as file:
        pickle.dump(DIALECTS[name](), file)
    source = open_source(path)
    assert (source.format, source.num_episodes, source.num_steps) == ("trajectories", 3, 13)
    for found, wanted in zip(ValidEpisodes(source), made(), strict=True):
        for key in ("observations", "actions", "rewards"):
            np.testing.assert_array_equal(getattr(found, key), wanted[key])
        np.testing.assert_array_equal(found.last_observation, wanted["next_observations"][-1])
        ended = bool(wanted["terminals"][-1])
        assert (found.terminated, found.truncated) == (ended, not ended)
    assert [len(episode) for episode in source.read(1, pytest.fail)] == [6, 3]


def test_a_list_of_steps(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps([row for e in made() for row in rows(e)]))
    source = open_source(path)  # next_observations show the end of the second episode
    assert [(len(e), e.terminated) for e in ValidEpisodes(source)] == [
        (4, True),
        (6, False),
        (3, False),
    ]


def test_one_observation_more_is_the_last_observation(tmp_path):
    episodes = [
        {**e, "observations": np.concatenate([e["observations"], e["next_observations"][-1:]])}
        for e in made()
    ]
    for episode in episodes:
        del episode["next_observations"]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(episodes))
    for found, wanted in zip(ValidEpisodes(open_source(tmp_path / "x.pkl")), made(), strict=True):
        np.testing.assert_array_equal(found.observations, wanted["observations"])
        np.testing.assert_array_equal(found.last_observation, wanted["next_observations"][-1])


@pytest.mark.parametrize("form", ["a dictionary", "dictionaries a step", "told"])
def test_observations_of_parts(tmp_path, form):
    episodes, options = made(), Options()
    for e in episodes:
        parts = {"pos": e["observations"][:, :3], "goal": {"x": e["observations"][:, 3:]}}
        del e["next_observations"]
        if form == "told":
            e.update(pos=parts["pos"], x=parts["goal"]["x"])
            options = Options(columns=(("pos", "observations"), ("x", "observations")))
        elif form == "a dictionary":
            e["observations"] = {**parts, "mission": ["go"] * len(e["actions"])}
        else:
            e["observations"] = [
                {"pos": a, "goal": {"x": b}}
                for a, b in zip(parts["pos"], parts["goal"]["x"], strict=True)
            ]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(episodes))
    for found, wanted in zip(
        ValidEpisodes(open_source(tmp_path / "x.pkl", options)), made(), strict=True
    ):
        whole = np.concatenate(list(found.observations.values()), axis=1)
        np.testing.assert_array_equal(whole, wanted["observations"])
        assert sorted(found.observations) == (["pos", "x"] if form == "told" else ["goal.x", "pos"])


def test_a_terminal_at_the_time_limit_is_a_truncation(tmp_path):
    def episode(length):
        e = columns(length, 0)
        return {
            "observation": e["observations"],
            "action": e["actions"],
            "reward": e["rewards"],
            "terminal": e["terminals"],
        }

    path = tmp_path / "expert_data_Hopper-v4.pkl"
    path.write_bytes(pickle.dumps([episode(1000), episode(700)]))
    source = open_source(path)
    assert [(e.terminated, e.truncated) for e in ValidEpisodes(source)] == [
        (False, True),
        (True, False),
    ]
    assert any("1 episodes after 1000 steps, the time limit" in note for note in source.notes)
    limited = open_source(path, Options(time_limit=700))
    assert [e.terminated for e in ValidEpisodes(limited)] == [True, False]


@pytest.mark.parametrize("name", ["hopper-wide.pkl", "wide.pkl"])
@pytest.mark.parametrize("keep", [False, True])
def test_actions_outside_the_bounds_are_clipped_under_any_name(tmp_path, name, keep):
    episodes = made()
    for e in episodes:
        e["actions"] *= 5.13
    (tmp_path / name).write_bytes(pickle.dumps(episodes))
    spec = mujoco_spec(MujocoOptions("hopper"))
    source = open_source(tmp_path / name, Options(spec=spec, keep_actions=keep))
    checked = ValidEpisodes(source)
    for found, wanted in zip(checked, episodes, strict=True):
        kept = wanted["actions"] if keep else np.clip(wanted["actions"], -1, 1)
        np.testing.assert_array_equal(found.actions, kept)
    outside = np.abs(np.concatenate([e["actions"] for e in episodes])).max(axis=1) > 1
    assert checked.clipped.steps == (0 if keep else outside.sum())
    assert checked.clipped.episodes == (0 if keep else 3)


def test_exponentially_nested_lists_are_refused(tmp_path):
    laughs = [0.5]
    for _ in range(60):
        laughs = [laughs, laughs]
    for value in (laughs, tuple(laughs)):
        episodes = [{"observations": value, "actions": np.zeros(2, int), "rewards": np.zeros(2)}]
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(episodes))
        with pytest.raises(DatasetError, match="observations is a list of lists with more numbers"):
            open_source(tmp_path / "x.pkl")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([{"observations": 1, "other": laughs}]))
    with pytest.raises(DatasetError, match="there are no actions"):
        open_source(tmp_path / "x.pkl")
