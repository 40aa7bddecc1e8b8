"""Film a trained model in its environment, and its memory beside it.

    rate video runs/minigrid-rate-1
    rate video runs/tmaze-rate-1 --length 300 --seed 7 -o tmaze.gif
    rate video path/to/model --length 31 -o rollout.mp4     # needs ffmpeg

One episode of a run's last weights, on a held-out seed: what the environment shows, what the model
does and asks for, and the memory tokens that each segment reads, their change and their path.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from rate.analysis.recording import EpisodeRecord, record_episode
from rate.config import ModelConfig
from rate.errors import ConfigError
from rate.files import atomic_path
from rate.progress import OnProgress, with_progress
from trainers.commands.console import count, make_parser, user_errors
from trainers.commands.environment_options import (
    add_environment_option,
    parse_with_settings,
)
from trainers.commands.evaluate import LAST_SEED, find_candidates
from trainers.commands.outputs import check_picture, output_errors
from trainers.commands.scoring import Candidate
from trainers.environment import Length, at_length
from trainers.environment_errors import environment_errors
from trainers.meter import Meter
from trainers.policies import make_policy
from trainers.registry import check_lengths, environment_of, length_name

MOST_FRAMES = 300
MOST_FRAMES_PER_SECOND = 50  # GIFs count in hundredths of a second, and players take no less than 2
_LAST_SECONDS = 1.5  # how long the last frame is shown

Pixels = NDArray[np.uint8]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` replace `sys.argv[1:]`."""
    parser = make_parser("video", __doc__)
    parser.add_argument("source", type=Path, help="a run, or a model alone")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("rollout.gif"), help="the GIF or MP4 to write"
    )
    parser.add_argument("--length", type=count, help="episode length (default: the run's)")
    parser.add_argument("--seed", type=int, help="the episode (default: a held-out one)")
    parser.add_argument("--steps", type=count, help="stop after so many steps")
    parser.add_argument("--fps", type=count, default=10, help="frames a second (default: 10)")
    add_environment_option(parser)
    with user_errors():
        options, env = parse_with_settings(parser, arguments)
    console = Console()
    with user_errors():
        check_output(options.output, options.fps)
        last = find_candidates(options.source)[0]
        candidate = last.playing_in(options.env, env)
        settings = candidate.settings
        length = options.length or settings.selection_lengths[0]
        seed = settings.test_seed if options.seed is None else options.seed
        record = film(candidate, length, seed, options.steps, options.fps, options.output)
    size = options.output.stat().st_size / 1e6
    outcomes = "".join(f", {name} {value:g}" for name, value in record.outcome.items())
    console.print(
        f"{record.steps} steps, return {record.earned:.2f}{outcomes}\n"
        f"The video {options.output} ({size:.1f} MB)",
        highlight=False,
    )


def check_output(path: Path, fps: int) -> None:
    """Check that a video can be written, before the rollout.

    Raises:
        ConfigError: If the frame rate is too high, the suffix is unknown, the file is of another
            kind or cannot be written, or ffmpeg is needed and missing.
    """
    if fps > MOST_FRAMES_PER_SECOND:
        raise ConfigError(f"--fps is {fps}; it must be at most {MOST_FRAMES_PER_SECOND}.")
    check_picture(path, ".gif", ".mp4")
    if path.suffix.lower() == ".mp4" and shutil.which("ffmpeg") is None:
        raise ConfigError(
            f"{path} needs the program ffmpeg, which is not on the PATH. Install it, or write a "
            f"GIF: -o {path.with_suffix('.gif')}"
        )


def film(
    candidate: Candidate, length: Length, seed: int, steps: int | None, fps: int, path: Path
) -> EpisodeRecord:
    """Play an episode as `play` does, and write its video with `fps` frames per second.

    Raises:
        ConfigError: If the length or the seed is out of range, or the video cannot be written.
    """
    record = play(candidate, length, seed, steps)
    saved, name = candidate.saved, candidate.label["model"]
    what = length_name(saved.spec.name).removesuffix(" (steps)")
    title = f"{name} on {saved.spec.name}, {what} {at_length(length)}, seed {seed}"
    with Meter() as meter:
        write(Film(record, saved.model.config, title, fps, meter.show), path)
    return record


def play(candidate: Candidate, length: Length, seed: int, steps: int | None) -> EpisodeRecord:
    """Roll out one episode of a model with the evaluation settings of its run.

    Args:
        candidate: The model.
        length: The length of the episode.
        seed: The seed of the episode.
        steps: Steps after which to stop; None plays to the end.

    Raises:
        ConfigError: If the length or the seed is out of range.
    """
    saved, settings = candidate.saved, candidate.settings
    environment = environment_of(saved.spec, workers=1).drawing()
    longest = min(check_lengths(environment, [length], "--length"), steps or 1 << 62)
    if not 0 <= seed < LAST_SEED:
        raise ConfigError(f"--seed is {seed}; it must be in [0, 2^63).")
    policy = make_policy(
        saved.model,
        settings,
        saved.spec.target_return,
        num_envs=1,
        trained_range=saved.trained_range,
        decoding=saved.decoding,
        seed=seed,
    )
    env = environment.make_vector(1, length)
    try:
        with Meter() as meter, environment_errors(saved.spec.name):
            return record_episode(
                policy,
                env,
                seed,
                max_steps=steps,
                max_moments=MOST_FRAMES,
                on_step=lambda step: meter.show("playing", step, longest),
            )
    finally:
        env.close()


class Film:
    """The frames of an episode, drawn lazily: a frame of 1.5 MB is not kept in memory.

    Args:
        record: The episode.
        config: The configuration of the model.
        title: The text at the top of each frame.
        fps: Frames per second; the last frame is repeated for 1.5 seconds.
        tell: Called with the progress, in frames.
    """

    def __init__(
        self, record: EpisodeRecord, config: ModelConfig, title: str, fps: int, tell: OnProgress
    ) -> None:
        from trainers.commands.video_screen import Screen  # Matplotlib takes a second to import

        self._screen, self._moments, self.fps = Screen(record, config, title), record.moments, fps
        self._tell = tell

    def __iter__(self) -> Iterator[Pixels]:
        """Yields frames `(H, W, 3)` uint8."""
        frame = None
        for moment in with_progress(self._moments, "drawing", len(self._moments), self._tell):
            frame = self._screen.show(moment)
            yield frame
        for _ in range(int(_LAST_SECONDS * self.fps)):
            if frame is not None:
                yield frame

    def sample(self, number: int) -> list[Pixels]:
        """Returns about `number` frames, evenly spaced over the episode."""
        return [
            self._screen.show(m) for m in self._moments[:: max(1, len(self._moments) // number)]
        ]


def write(film: Film, path: Path) -> None:
    """Write a video, atomically.

    Raises:
        ConfigError: If it cannot be written.
    """
    with output_errors(path), atomic_path(path) as draft:
        (_write_mp4 if path.suffix.lower() == ".mp4" else _write_gif)(film, draft)


def _write_gif(film: Film, path: Path) -> None:
    """Write a GIF with one palette for all frames: static pixels compress and do not flicker."""
    from PIL import Image

    palette = _palette(film.sample(12))
    images = (
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in film
    )
    next(images).save(
        path,
        format="GIF",
        save_all=True,
        append_images=images,
        duration=round(1000 / film.fps),
        loop=0,
    )


def _palette(frames: list[Pixels]) -> Any:
    """Returns an image whose palette has 256 colours, fitted to the frames."""
    from PIL import Image

    sheet = Image.fromarray(np.concatenate([frame[::2, ::2] for frame in frames]))
    return sheet.quantize(256, method=Image.Quantize.MEDIANCUT)


def _write_mp4(film: Film, path: Path) -> None:
    """Write an MP4 by piping raw frames to ffmpeg.

    Raises:
        ConfigError: If ffmpeg fails; the message has its last line.
    """
    frames = iter(film)
    first = next(frames)
    size = f"{first.shape[1]}x{first.shape[0]}"
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(film.fps), "-i", "-"]
    command = ["ffmpeg", "-y", "-loglevel", "error", *source]
    command += ["-pix_fmt", "yuv420p", "-f", "mp4", str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stderr=pipe) as process:
        with suppress(BrokenPipeError):  # ffmpeg has ended; its error is read below
            for frame in chain([first], frames):
                if process.stdin is not None:
                    process.stdin.write(frame.tobytes())
        output = process.communicate()[1].decode(errors="replace").strip().splitlines()
    if process.returncode:
        raise ConfigError(f"ffmpeg could not write {path.name}: {(output or ['no message'])[-1]}")


if __name__ == "__main__":
    main()
