"""Properties of every memory task: a new one in `TASKS` is tested here without another line."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rate.envs.autoreset import WAITING
from rate.envs.spec import EnvironmentSpec
from rate.envs.tasks import TASK_IDS, TASKS
from rate.envs.tasks.base import Task
from rate.envs.tasks.sampling import EpisodeSampler
from rate.errors import ConfigError
from trainers.task_record import task_record

SEEDS = [0, 1, 2**62, 2**63 - 1, 100, 7, 3]


def task_class(name: str) -> type[Task[Any]]:
    return task_record(name).env


def make(name: str, *, privileged: bool = False, length: Any = None) -> Task[Any]:
    found = task_class(name)
    return found(found.options_class(privileged=privileged), length)


def a_range(name: str) -> tuple[int, int]:
    task = make(name)
    return task.shortest, task.shortest + 4


@pytest.fixture(params=TASKS)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def parts(observation: Any) -> dict[str, Any]:
    return observation if isinstance(observation, dict) else {"": observation}


def assert_rows_equal(batch: Any, rows: list[Any]) -> None:
    for key, column in parts(batch).items():
        wanted = np.stack([parts(row)[key] for row in rows])
        assert column.dtype == wanted.dtype
        np.testing.assert_array_equal(column, wanted)


@pytest.mark.filterwarnings("ignore:.*render modes.*", "ignore:.*values are equal.*")
@pytest.mark.parametrize("privileged", [False, True])
def test_gymnasium_accepts_it(name: str, privileged: bool) -> None:
    task = make(name, privileged=privileged)
    check_env(task, skip_render_check=True)
    spec = task.spec_of(task.options)
    assert spec.observation_space == task.observation_space
    assert EnvironmentSpec.from_dict({**spec.to_dict(), "name": name}).action_space == (
        task.action_space
    )
    (gym_id,) = [gym_id for gym_id, short in TASK_IDS.items() if short == name]
    alone = gymnasium.make(gym_id, privileged=privileged)
    assert alone.observation_space == task.observation_space
    rows = gymnasium.make_vec(
        gym_id, 3, vectorization_mode="vector_entry_point", privileged=privileged
    )
    assert rows.single_observation_space == task.observation_space
    assert WAITING.items() <= rows.metadata.items()


@pytest.mark.parametrize("privileged", [False, True])
@pytest.mark.parametrize("varies", [False, True])
def test_single_and_vector_agree_to_the_bit(name: str, privileged: bool, varies: bool) -> None:
    """With random actions and the expert's, seeds out of order, and rows that have finished."""
    length = a_range(name) if varies else None
    task = make(name, privileged=privileged, length=length)
    vector = task.make_vector(len(SEEDS), task.options, length)
    singles = [make(name, privileged=privileged, length=length) for _ in SEEDS]
    batch, info = vector.reset(seed=SEEDS)
    rows = [env.reset(seed=seed) for env, seed in zip(singles, SEEDS, strict=True)]
    assert_rows_equal(batch, [row[0] for row in rows])
    random = np.random.default_rng(0)
    for _ in range(task.max_steps + 2):
        wrong = random.random(len(SEEDS)) < 0.1
        chosen = random.integers(task.num_actions, size=len(SEEDS))
        actions = np.where(wrong, chosen, info["oracle_action"])
        batch, rewards, terminated, truncated, info = vector.step(actions)
        stepped = [env.step(action) for env, action in zip(singles, actions, strict=True)]
        assert_rows_equal(batch, [row[0] for row in stepped])
        assert vector.observation_space.contains(batch)
        for column, values in enumerate((rewards, terminated, truncated), start=1):
            np.testing.assert_array_equal(values, np.stack([row[column] for row in stepped]))
        for key in ("success", "oracle_action"):
            np.testing.assert_array_equal(info[key], [row[4][key] for row in stepped])
            assert info[f"_{key}"].all()
    assert (terminated | truncated).all()


def play(task: Task[Any], rows: int, **reset: Any) -> tuple[Any, Any, Any]:
    """Returns the returns, successes and lengths of the expert's episodes."""
    vector = task.make_vector(rows, task.options, task.lengths)
    _, info = vector.reset(**reset)
    returns, lengths = np.zeros(rows), np.zeros(rows)
    ended = np.zeros(rows, dtype=bool)
    for _ in range(task.max_steps):
        lengths += ~ended
        _, rewards, terminated, truncated, info = vector.step(info["oracle_action"])
        returns += rewards
        ended = terminated | truncated
    assert ended.all()
    return returns, info["success"], lengths


def test_the_expert_succeeds_and_reaches_the_best_return(name: str) -> None:
    task = make(name)
    returns, success, lengths = play(task, 200, seed=0)
    assert success.all()
    assert returns.mean() == pytest.approx(task.best_return, rel=0.03)
    assert lengths.max() <= task.max_steps
    _, success, _ = play(make(name, length=a_range(name)), 50, seed=0)
    assert success.all()


def test_an_episode_depends_on_its_seed_alone(name: str) -> None:
    task = make(name, privileged=True)
    rows = task.make_vector(4, task.options)
    first, _ = rows.reset(seed=[7, 8, 9, 10])
    rows.step(np.zeros(4, dtype=np.int64))
    again, _ = rows.reset(seed=[10, 8, 7, 9])
    for key, value in first.items():
        np.testing.assert_array_equal(value[[3, 1, 0, 2]], again[key])
    drawn = {task.reset(seed=seed)[0]["privileged"].tobytes() for seed in range(40)}
    assert len(drawn) > 1


def test_a_mask_resets_some_rows_only(name: str) -> None:
    task = make(name)
    rows, alone = task.make_vector(3, task.options), make(name)
    _, info = rows.reset(seed=[1, 2, 3])
    alone.reset(seed=2)
    rows.step(info["oracle_action"])
    alone.step(int(info["oracle_action"][1]))
    mask = np.array([True, False, True])
    seen, info = rows.reset(seed=[4, 5, 6], options={"reset_mask": mask})
    expected, _, _, _, told = alone.step(0)
    followed = rows.step(np.zeros(3, dtype=np.int64))
    np.testing.assert_array_equal(followed[0][1], expected)
    assert followed[4]["oracle_action"][1] == told["oracle_action"]
    np.testing.assert_array_equal(seen[0], make(name).reset(seed=4)[0])


def drawn_values(
    task: Task[Any], seed: int, options: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Returns what a reset samples, by the names of the reset options."""
    found: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EpisodeSampler, "check_names", lambda sampler: found.update(sampler.drawn))
        task.reset(seed=seed, options=options)
    return {key: value[0] for key, value in found.items()}


def test_reset_options_fix_what_they_name(name: str) -> None:
    """With all values of another seed fixed, an episode is that of the other seed."""
    task = make(name, privileged=True)
    mine, other = drawn_values(task, 1), drawn_values(task, 5)
    fixed = {key: np.asarray(value).tolist() for key, value in other.items()}
    task.reset(seed=1, options=fixed)
    assert task.state["seed"] == 1
    expected = make(name, privileged=True)
    expected.reset(seed=5)
    for key, value in expected.state.items():
        if key != "seed":
            np.testing.assert_array_equal(task.state[key], value)
    known: dict[str, Any] = {}
    for key, value in fixed.items():  # in the order of draws: one may depend on those before
        known[key] = value
        np.testing.assert_array_equal(drawn_values(task, 1, known)[key], value)
    assert any(not np.array_equal(mine[key], other[key]) for key in mine)


def test_a_vector_takes_a_reset_option_for_all_rows_or_for_each(name: str) -> None:
    task = make(name, privileged=True)
    values = [drawn_values(task, seed) for seed in (3, 4, 5)]
    key = next(key for key in values[0] if key != "length")
    rows = task.make_vector(3, task.options)
    rows.reset(seed=0, options={key: values[0][key]})
    for row in range(1, 3):
        np.testing.assert_array_equal(rows.state[key][row], rows.state[key][0])
    rows.reset(seed=0, options={key: np.stack([value[key] for value in values])})
    for row, value in enumerate(values):
        alone = make(name, privileged=True)
        alone.reset(seed=row, options={key: value[key]})
        for part, array in alone.state.items():
            np.testing.assert_array_equal(rows.state[part][row], array[0])


def test_an_unknown_or_impossible_reset_option_is_refused(name: str) -> None:
    task = make(name)
    keys = [key for key in drawn_values(task, 0) if key != "length"]
    with pytest.raises(ConfigError, match="reset has no option 'color'"):
        task.reset(options={"color": 1})
    impossible = task.max_steps + 10**6
    for key in keys:
        for value in ("red", [0.5], None, [[impossible]] * 3, impossible):
            with pytest.raises(ConfigError, match=f"The reset option '{key}' is"):
                task.reset(options={key: value})
    with pytest.raises(ConfigError, match="The reset option 'length' is"):
        task.reset(options={"length": task.lengths[1] + 1})


def test_impossible_lengths_and_actions_are_refused(name: str) -> None:
    task = make(name)
    low = task.shortest
    for length in (low - 1, (low + 2, low + 1), -1, low + 0.5, "long", [low], (low, low + 1.5)):
        with pytest.raises(ConfigError, match=f"{type(task).__name__} length"):
            make(name, length=length)
    (gym_id,) = [gym_id for gym_id, short in TASK_IDS.items() if short == name]
    with pytest.raises(ConfigError, match=r"has no setting 'privilege'. Did you mean privileged"):
        gymnasium.make(gym_id, privilege=True)
    with pytest.raises(ValueError, match="must be reset"):
        make(name).step(0)
    task.reset(seed=0)
    with pytest.raises(ValueError, match="expected 0 to"):
        task.step(task.num_actions)
    with pytest.raises(ValueError, match="integers from 0 to"):
        task.make_vector(2).step(np.array([0, task.num_actions]))
    with pytest.raises(ValueError, match="at least one environment"):
        task.make_vector(0)


def test_the_privileged_state_is_constant_in_size_and_tells_what_is_hidden(name: str) -> None:
    """Episodes that begin with equal observations but need other actions differ in it."""
    task = make(name, privileged=True)
    assert isinstance(task.observation_space, gymnasium.spaces.Dict)
    assert task.observation_space["privileged"].is_bounded()
    vector = task.make_vector(100, task.options)
    seen, info = vector.reset(seed=0)
    answers: dict[tuple[bytes, ...], int] = {}
    for _ in range(task.max_steps):
        ended = np.zeros(100, dtype=bool)
        for row in np.flatnonzero(~ended):
            state = (seen["privileged"][row].tobytes(), seen[task.observation_key][row].tobytes())
            action = int(info["oracle_action"][row])
            assert answers.setdefault(state, action) == action
        seen, _, terminated, truncated, info = vector.step(info["oracle_action"])
        if (terminated | truncated).all():
            break
