"""Videos show the recorded episode, for every model and environment."""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from PIL import Image

from rate.analysis.recording import EpisodeRecord, Moment, odds, record_episode
from rate.config import Decoding
from rate.envs.tmaze import TMazeVector
from rate.heads import make_head
from rate.policy import Policy
from rate.weights import load_model
from tests.factories import make_model
from trainers.commands.video import main
from trainers.commands.video_panels import principal_components
from trainers.commands.video_screen import HEIGHT, WIDTH, Screen

Trained = Callable[[str], Path]
LENGTH = 40  # observations, one more than actions
STEPS = LENGTH - 1


def frames_of(path: Path) -> int:
    with Image.open(path) as image:
        assert image.size == (WIDTH, HEIGHT)
        return int(getattr(image, "n_frames", 1))


def recorded(run: Path, **others: Any) -> EpisodeRecord:
    saved = load_model(run / "checkpoints" / "last")
    policy = Policy(saved.model, num_envs=1, target_return=1.0)
    return record_episode(policy, TMazeVector(1, LENGTH), seed=3, **others)


@pytest.mark.parametrize("mode", ["rate", "trxl", "dt"])
def test_every_model_can_be_recorded(
    mode: str, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = tmp_path / "deeper" / "rollout.gif"
    main([str(trained(mode)), "-o", str(video), "--length", str(LENGTH), "--seed", "1"])
    assert 2 <= frames_of(video) <= LENGTH + 1
    printed = capsys.readouterr().out
    assert f"{STEPS} steps, return" in printed
    assert "success" in printed
    assert [path.name for path in video.parent.iterdir()] == ["rollout.gif"]


def test_a_model_folder_is_accepted_and_steps_are_limited(trained: Trained, tmp_path: Path) -> None:
    video, model = tmp_path / "few.gif", trained("rate") / "checkpoints" / "best"
    main([str(model), "-o", str(video), "--length", str(LENGTH), "--steps", "5", "--fps", "50"])
    assert 2 <= frames_of(video) <= 6


@pytest.mark.parametrize("mode", ["rate", "rmt", "trxl", "dt"])
def test_an_episode_is_recorded_as_evaluation_plays_it(mode: str, trained: Trained) -> None:
    record = recorded(trained(mode))
    saved = load_model(trained(mode) / "checkpoints" / "last")
    policy, env = Policy(saved.model, num_envs=1, target_return=1.0), TMazeVector(1, LENGTH)
    observations, _ = env.reset(seed=[3])
    rewards = None
    for moment in record.moments[:-1]:
        np.testing.assert_array_equal(moment.observation, observations[0])
        actions = policy.act(observations, rewards)
        assert moment.action is not None
        assert moment.action.tolist() == [int(actions[0])] == [int(np.argmax(moment.odds[0]))]
        np.testing.assert_allclose(moment.odds[0].sum(), 1, rtol=1e-5)
        observations, rewards, *_, info = env.step(actions)
    assert record.outcome == {"success": float(info["success"][0])}
    assert record.finished
    assert record.moments[-1].action is None
    np.testing.assert_array_equal(record.moments[-1].observation, observations[0])
    assert len(record.returns_to_go) == record.steps + 1 == LENGTH
    assert record.returns_to_go[-1] == 1.0 - record.earned


def test_the_shown_memory_is_that_read_by_each_segment(trained: Trained) -> None:
    record, saved = (
        recorded(trained("rate")),
        load_model(trained("rate") / "checkpoints" / "last"),
    )
    config = saved.model.config
    assert len(record.memories) == -(-STEPS // config.context_length)
    assert record.memories[0].shape == (config.num_memory_tokens, config.d_model)
    np.testing.assert_array_equal(record.memories[0], saved.model.backbone.memory.detach().numpy())
    assert not np.allclose(record.memories[0], record.memories[1])
    segments = [moment.segment for moment in record.moments[:-1]]
    assert segments == [step // config.context_length for step in range(STEPS)]


def test_a_cache_starts_empty_and_fills(trained: Trained) -> None:
    record = recorded(trained("trxl"))
    filled = [int(np.isfinite(cache[0]).sum()) for cache in record.caches]
    assert filled == [30 * segment for segment in range(len(filled))]
    assert not record.memories


def test_a_window_drops_old_steps(trained: Trained) -> None:
    run = trained("dt")
    window = load_model(run / "checkpoints" / "last").model.config.context_length
    env, saved = TMazeVector(1, window + 10), load_model(run / "checkpoints" / "last")
    policy = Policy(saved.model, num_envs=1, target_return=1.0, recompute_window=False)
    record = record_episode(policy, env, 0)
    assert [m.first_in_view for m in record.moments] == [
        max(0, step - window + 1) for step in range(window + 10)
    ]


def test_a_long_episode_keeps_evenly_spaced_steps(trained: Trained) -> None:
    reported: list[int] = []
    record = recorded(trained("rate"), max_moments=8, on_step=reported.append)
    steps = [moment.step for moment in record.moments]
    assert steps == [0, 8, 16, 24, 32, STEPS]
    assert reported == list(range(1, STEPS + 1))
    assert len(record.memories) == 4


def test_a_cut_episode_has_no_outcome(trained: Trained) -> None:
    record = recorded(trained("rate"), max_steps=7)
    assert (record.steps, record.finished, record.outcome) == (7, False, {})


class _Drawing(TMazeVector):
    """A T-Maze that renders its step number and whose simulator crashes once, at the third step."""

    dead = False

    def render_row(self, row: int) -> Any:
        return np.full((6, 8, 3), self._time[row], dtype=np.uint8)

    def step(self, actions: Any) -> Any:
        result = super().step(actions)
        if self._time[0] == 3 and not self.dead:
            self.dead = True
            observations, info = self.reset(seed=[3])
            nothing = np.zeros(1)
            return observations, nothing, nothing > 0, nothing > 0, {**info, "restarted": [True]}
        return result


def test_pictures_are_rendered_and_a_restart_begins_again(trained: Trained) -> None:
    saved = load_model(trained("rate") / "checkpoints" / "last")
    policy = Policy(saved.model, num_envs=1, target_return=1.0)
    record = record_episode(policy, _Drawing(1, 9), seed=3)
    assert [m.step for m in record.moments] == list(range(9))
    pictures = [m.picture for m in record.moments if m.picture is not None]
    assert [int(p[0, 0, 0]) for p in pictures] == list(range(9))
    frames = [Screen(record, saved.model.config, "").show(m) for m in record.moments[:2]]
    assert frames[0].shape == (HEIGHT, WIDTH, 3)
    assert (frames[0] != frames[1]).any()


def test_a_frame_does_not_depend_on_earlier_ones(trained: Trained) -> None:
    record = recorded(trained("rate"))
    config = load_model(trained("rate") / "checkpoints" / "last").model.config
    screen, other = (Screen(record, config, "title") for _ in range(2))
    for moment in record.moments:
        screen.show(moment)
    for index in (0, 12, -1):
        moment = record.moments[index]
        np.testing.assert_array_equal(screen.show(moment), other.show(moment))


@pytest.mark.parametrize(
    ("spaces", "sizes"),
    [
        ("vector_to_discrete", [4]),
        ("scalar_to_multi_discrete", [3, 2, 4]),
        ("matrix_to_bounded", [2]),
    ],
)
def test_every_kind_of_action_can_be_drawn(spaces: str, sizes: list[int]) -> None:
    model = make_model("rate", spaces)
    prediction = torch.linspace(-1, 1, sum(sizes))
    parts = odds(model.head, prediction, Decoding())
    assert [len(part) for part in parts] == sizes
    action = np.zeros(len(sizes) if spaces != "matrix_to_bounded" else 2)
    moment = Moment(0, 0, 0, None, np.zeros(3), parts, action, 1.0, 0.0)
    end = replace(moment, step=1, odds=[], action=None)
    memory = np.random.default_rng(0).normal(size=(3, 16))
    record = EpisodeRecord([moment, end], [memory], [], [1.0, 1.0], steps=1)
    screen = Screen(record, model.config, "")
    assert (screen.show(moment) != screen.show(end)).any()


def test_shown_probabilities_are_those_of_sampling() -> None:
    head, logits = make_head(Discrete(3), 8), torch.tensor([0.0, 1.0, 2.0])
    warm = odds(head, logits, Decoding("sample", temperature=2.0))[0]
    np.testing.assert_allclose(warm, (logits / 2).softmax(-1), rtol=1e-6)
    np.testing.assert_allclose(odds(head, logits, Decoding())[0], logits.softmax(-1), rtol=1e-6)
    box = make_head(Box(-1, 1, (3,)), 8)
    np.testing.assert_array_equal(odds(box, logits, Decoding())[0], logits)


def test_principal_components_keep_the_largest_variance() -> None:
    rows = np.outer([1.0, -2.0, 4.0], [0.6, 0.8, 0.0])
    points, shares = principal_components(rows)
    np.testing.assert_allclose(np.abs(np.diff(points[:, 0])), [3, 6])
    np.testing.assert_allclose(shares, [1, 0], atol=1e-12)
    for few in (rows[:0], rows[:1], rows[:2, :1]):
        assert principal_components(few)[0].shape == (len(few), 2)


def _fake_ffmpeg(folder: Path, script: str) -> str:
    """Puts a program named `ffmpeg` on the PATH."""
    program = folder / "ffmpeg"
    program.write_text(f"#!{sys.executable}\nimport sys\n{script}\n", encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(folder)


def test_mp4_is_encoded_by_ffmpeg(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "data = sys.stdin.buffer.read(); open(sys.argv[-1], 'w').write(str(len(data)))"
    monkeypatch.setenv("PATH", _fake_ffmpeg(tmp_path, script))
    video = tmp_path / "rollout.mp4"
    main([str(trained("rate")), "-o", str(video), "--length", "9", "--fps", "2"])
    frames, rest = divmod(int(video.read_text()), WIDTH * HEIGHT * 3)
    assert (frames, rest) == (9 + 3, 0)


def test_an_error_of_ffmpeg_is_reported(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error_of: Any
) -> None:
    monkeypatch.setenv("PATH", _fake_ffmpeg(tmp_path, "sys.exit('no such encoder')"))
    video = tmp_path / "rollout.mp4"
    error = error_of(main, [str(trained("rate")), "-o", str(video), "--length", "9"])
    assert "no such encoder" in error
    assert not video.exists()


def test_without_ffmpeg_there_is_no_mp4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error_of: Any
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    error = error_of(main, ["runs/x", "-o", str(tmp_path / "a.mp4")])
    assert "needs the program ffmpeg" in error
    assert f"-o {tmp_path / 'a.gif'}" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--length", "2"], "--length has 2"),
        (["--length", "x"], "'x' is no whole number"),
        (["--steps", "0"], "'0' is no whole number of at least 1"),
        (["--seed", "-1"], "--seed is -1"),
        (["--fps", "51"], "--fps is 51; it must be at most 50"),
        (["-o", "film.avi"], "film.avi is to be a .gif or .mp4 file"),
    ],
)
def test_an_invalid_option_is_refused(
    options: list[str], message: str, trained: Trained, tmp_path: Path, error_of: Any
) -> None:
    output = ["-o", str(tmp_path / "film.gif")]
    assert message in error_of(main, [str(trained("rate")), *output, *options])


def test_a_folder_without_a_run_is_refused(tmp_path: Path, error_of: Any) -> None:
    error = error_of(main, [str(tmp_path), "-o", str(tmp_path / "a.gif")])
    assert f"{tmp_path} holds no model" in error


def test_an_unwritable_output_is_refused_before_any_step(tmp_path: Path, error_of: Any) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "a.gif").mkdir()
    for video in (tmp_path / "file" / "a.gif", tmp_path / "a.gif"):
        assert f"{video} cannot be written" in error_of(main, ["runs/none", "-o", str(video)])


def test_more_than_one_row_is_refused(trained: Trained) -> None:
    saved = load_model(trained("rate") / "checkpoints" / "last")
    policy = Policy(saved.model, num_envs=2, target_return=1.0)
    with pytest.raises(ValueError, match="of one row"):
        record_episode(policy, TMazeVector(2, 9), 0)
