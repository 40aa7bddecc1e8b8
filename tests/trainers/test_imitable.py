"""Data sets of which it is known what can be learnt from the agent's observations."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.dataset import Dataset
from datamodules.episodes import DatasetError
from datamodules.formats import open_source
from trainers import imitable as students
from trainers.commands.validate import meaning
from trainers.imitable import (
    HISTORY,
    INFORMED,
    PRESENT,
    REPEATED,
    Prediction,
    imitable,
)

EPISODES, LENGTH, UPDATES = 60, 6, 30


def measure(tmp_path, episodes, updates=UPDATES):
    """Returns the predictions of the students for episodes, given as dictionaries of columns."""
    store = Dataset.from_arrays(episodes, tmp_path).path
    steps = sum(len(episode["actions"]) for episode in episodes)
    return imitable(open_source(store), len(episodes), steps, updates)


def corridor(number, shown=True, privileged=False, length=LENGTH):
    """Returns an episode of a T-Maze: a cue at the first step, a turn towards it at the last."""
    cue = np.random.default_rng(number).integers(2)
    seen = np.zeros((length, 3), np.float32)
    seen[0, cue] = float(shown)
    seen[-1, 2] = 1
    actions = np.zeros(length, np.int64)
    actions[-1] = 1 + cue
    observations = seen
    if privileged:
        state = np.full((length, 1), 2.0 * cue - 1, np.float32)
        observations = {"privileged": state, "vector": seen}
    end = np.arange(length) == length - 1
    return {
        "observations": observations,
        "actions": actions,
        "rewards": end.astype(np.float32),
        "terminated": end,
    }


def test_a_cue_is_learnt_from_the_history_alone(tmp_path):
    found = measure(tmp_path, [corridor(number) for number in range(EPISODES)])
    assert list(found) == [HISTORY, PRESENT, REPEATED]
    assert found[HISTORY].score == 1
    turns = found[PRESENT].errors  # at the last step alone
    assert set(turns) == {0, 1}
    assert found[PRESENT].score == pytest.approx(1 - turns.mean() / LENGTH)
    assert meaning(found).startswith("Memory is of use (1.000 from the whole history, 0.9")


def test_an_expert_of_the_hidden_state_is_learnt_with_the_privileged_state_alone(tmp_path):
    episodes = [corridor(number, shown=False, privileged=True) for number in range(EPISODES)]
    found = measure(tmp_path, episodes)
    assert found[INFORMED].score == 1
    for name in (HISTORY, PRESENT, REPEATED):
        assert found[name].score < 0.95
    text = meaning(found)
    assert text.startswith(
        "This expert acts on what the agent has not seen (1.000 with the privileged state, 0.9"
    )
    assert "; memory is of no use" in text


def test_what_the_observation_tells_needs_no_memory_and_no_privileged_state(tmp_path):
    def episode(number):
        told = corridor(number, privileged=True)
        told["observations"]["vector"][-1, :2] = told["observations"]["vector"][0, :2]
        return told

    found = measure(tmp_path, [episode(number) for number in range(EPISODES)])
    assert [prediction.score for prediction in found.values()] == [1, 1, 1, 1]
    text = meaning(found)
    assert text.startswith("What the agent has seen tells as much as the privileged state")
    assert "; memory is of no use" in text


def test_an_expert_that_repeats_actions_is_learnt_from_the_previous_action(tmp_path):
    """Continuous actions, without memory: each is the one before, with the sign changed."""

    def episode(number):
        action = np.random.default_rng(number).uniform(0.2, 1, (1, 2)).astype(np.float32)
        signs = (-1.0) ** np.arange(LENGTH)[:, None]
        return {**corridor(number, shown=False), "actions": (signs * action).astype(np.float32)}

    found = measure(tmp_path, [episode(number) for number in range(EPISODES)], 2 * UPDATES)
    assert all(prediction.continuous for prediction in found.values())
    assert found[PRESENT].score < 0.2 < 0.6 < found[REPEATED].score <= 1
    assert "from the present observation and the previous action)" in meaning(found)


def test_a_student_that_has_learnt_too_little_is_told():
    few, many = (Prediction(np.array(errors), 40.0, False) for errors in ([1, 2, 1], [5, 6, 5]))
    found = {HISTORY: many, PRESENT: few, REPEATED: few}
    assert meaning(found) == (
        "The student of the history has learnt too little (0.600 from the whole history, 0.900 "
        "from the present observation): more --imitable-steps or more episodes are needed to tell."
    )


def test_students_see_the_same_episodes_and_predict_others(tmp_path, monkeypatch):
    stores = {}

    def learn(student, store, *_):
        stores[student.name] = [store, None]
        return student

    def predict(student, store):
        stores[student.name][1] = store
        for one in stores[student.name]:
            _ = one.observations, one.arrays["actions"], one.arrays["seeds"]  # opens the files
        return Prediction(np.zeros(2), 1.0, False)

    monkeypatch.setattr(students, "_train", learn)
    monkeypatch.setattr(students, "_predict", predict)
    episodes = [corridor(number, privileged=True) for number in range(EPISODES)]
    for number, episode in enumerate(episodes):
        episode["observations"]["vector"][:, 1] = number
    measure(tmp_path, episodes)
    assert list(stores) == [HISTORY, PRESENT, REPEATED, INFORMED]
    for name, (train, held_out) in stores.items():
        seen = [_numbers(store.observations, name) for store in (train, held_out)]
        assert [len(numbers) for numbers in seen] == [EPISODES * 4 // 5, EPISODES // 5]
        assert sorted([*seen[0], *seen[1]]) == list(range(EPISODES))
    before = stores[REPEATED][1].observations["previous_action"][:, 0]  # 0 is none, 1 is action 0
    after = np.concatenate(([0], stores[REPEATED][1].arrays["actions"][:-1] + 1))
    assert (before == np.where(np.arange(len(after)) % LENGTH, after, 0)).all()


def _numbers(observations, name):
    """Returns the numbers of the episodes that a student of a name sees."""
    more = {REPEATED: {"previous_action"}, INFORMED: {"previous_action", "privileged"}}
    if name in more:
        assert set(observations) == {"vector", *more[name]}
        observations = observations["vector"]
    return observations[::LENGTH, 1].astype(int).tolist()


def test_too_few_episodes_to_hold_some_out(tmp_path):
    with pytest.raises(DatasetError, match="9 episodes are too few to hold some out"):
        measure(tmp_path, [corridor(number) for number in range(9)])


def test_actions_that_never_vary(tmp_path):
    def episode(number):
        return {**corridor(number), "actions": np.zeros((LENGTH, 1), np.float32)}

    with pytest.raises(DatasetError, match="never vary: there is nothing to imitate"):
        measure(tmp_path, [episode(number) for number in range(10)], 1)
