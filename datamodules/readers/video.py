"""Decodes video frames by their time, with PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datamodules.episodes import Array, DatasetError


def has_pyav() -> bool:
    """Whether videos can be read."""
    return find_spec("av") is not None


def read_frames(
    file: Path, times: npt.NDArray[np.float64], fps: float, shape: tuple[int, int, int]
) -> Array:
    """Returns the frames that are shown at some times.

    Args:
        file: An MP4 file. Nothing that it refers to is opened.
        times: `(T,)` seconds, ascending.
        fps: Frames in a second; a frame may be half of its duration away from its time.
        shape: The shape of a frame, `(H, W, 3)`.

    Returns:
        `(T, H, W, 3)` uint8.

    Raises:
        DatasetError: If the file is missing, damaged, of another size, or has no frame at a time.
    """
    import av

    if not file.is_file():
        raise DatasetError(f"{file} is missing; get it, the data set is not whole")
    frames = np.empty((len(times), *shape), np.uint8)
    found = 0
    try:
        for time, pixels in _decode(file, float(times[0]) - 1 / fps):
            if pixels.shape != shape:
                raise DatasetError(f"{file}: the frames are {pixels.shape}, not {shape}")
            if time > times[found] + 0.5 / fps:
                break
            if time >= times[found] - 0.5 / fps:
                frames[found] = pixels
                found += 1
                if found == len(times):
                    return frames
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        raise DatasetError(f"{file}: not a whole MP4 video ({error}); get it again") from error
    raise DatasetError(
        f"{file}: there is no frame at {times[found]:.3f} s, for step {found} of {len(times)}; the "
        "video is too short, or of other data"
    )


def _decode(file: Path, start: float) -> Iterator[tuple[float, Array]]:
    """Yields times and pixels of a video's frames, from a key frame before `start` on."""
    import av

    # Only this format: a list of other files that calls itself MP4 would be followed.
    with av.open(str(file.absolute()), format="mp4") as container:
        stream = container.streams.video[0]
        base = stream.time_base
        if base is None:
            raise ValueError("its frames have no times")
        if start > 0:
            container.seek(int(start / base), stream=stream)
        for frame in container.decode(stream):
            if frame.pts is not None:
                yield float(frame.pts * base), frame.to_ndarray(format="rgb24")
