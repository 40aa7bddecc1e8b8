"""Cameras of LeRobot data sets: one video for each episode, or for several."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pyarrow.parquet as pq
import pytest

from datamodules import DatasetError
from datamodules.formats import open_source
from datamodules.readers import lerobot
from datamodules.source import ValidEpisodes
from tests.datamodules import library_samples as library
from tests.datamodules.readers.test_lerobot import episodes, raise_error, versions
from tests.datamodules.samples import LENGTHS

CAMERA = "observation.images.top"


def with_camera(info):
    info["features"][CAMERA] = {
        "dtype": "video",
        "shape": [3, 32, 48],
        "names": ["channels", "height", "width"],
    }


def test_a_folder_without_videos_is_read_without_them(tmp_path):
    source = open_source(library.write_lerobot_2(tmp_path / "data", change=with_camera))
    assert f"there are no videos in the folder; left out are {CAMERA}" in source.notes
    assert source.spec.observation_space.shape == (11,)


def test_videos_without_pyav_are_reported_with_its_installation(tmp_path, monkeypatch):
    path = library.write_lerobot_2(tmp_path / "data", change=with_camera)
    for number in range(3):
        file = path / f"videos/{CAMERA}/chunk-{number // 2:03d}/episode_{number:06d}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    monkeypatch.setattr(lerobot, "has_pyav", lambda: False)
    with pytest.raises(DatasetError, match=rf"EXTRAS=lerobot.*--map {CAMERA}=none"):
        open_source(path)
    assert episodes(path, columns=((CAMERA, "none"),))


def write_video(file, levels, first=0):
    """Writes grey frames at `first`, `first + 1`, ... tenths of a second."""
    av = pytest.importorskip("av", reason="videos need PyAV (extra lerobot)")
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=library.FPS)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.time_base = Fraction(1, library.FPS)
        stream.gop_size = 4  # so that there are key frames to seek to
        for number, level in enumerate(levels):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), level, np.uint8), "rgb24")
            frame.pts = number + first
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def grey(number, step):
    return 40 * number + 10 * step + 20


def greys(numbers):
    return [grey(n, step) for n in numbers for step in range(LENGTHS[n])]


def write_videos(folder, write):
    """Writes a video for each episode (version 2), or one for the first two (version 3)."""
    if write is library.write_lerobot_2:
        path = write(folder, change=with_camera)
        for number in range(3):
            file = f"videos/{CAMERA}/chunk-{number // 2:03d}/episode_{number:06d}.mp4"
            write_video(path / file, greys([number]))
        return path
    starts = (0.0, LENGTHS[0] / library.FPS, 0.0)
    clips = [
        {
            f"videos/{CAMERA}/chunk_index": 0,
            f"videos/{CAMERA}/file_index": number // 2,
            f"videos/{CAMERA}/from_timestamp": start,
        }
        for number, start in enumerate(starts)
    ]
    path = write(folder, change=with_camera, clips=clips)
    for index, numbers in enumerate(([0, 1], [2])):
        write_video(path / f"videos/{CAMERA}/chunk-000/file-{index:03d}.mp4", greys(numbers))
    return path


@versions
def test_frames_are_found_by_their_times(tmp_path, write):
    source = open_source(write_videos(tmp_path / "data", write))
    assert source.spec.observation_space[CAMERA].shape == (32, 48, 3)
    assert sum(file.suffix == ".mp4" for file in source.files) == (
        3 if "2" in write.__name__ else 2
    )
    for start in (0, 1, 2):
        for number, episode in enumerate(source.read(start, raise_error), start=start):
            seen = episode.observations[CAMERA].mean(axis=(1, 2, 3))
            wanted = [grey(number, step) for step in range(LENGTHS[number])]
            np.testing.assert_allclose(seen, wanted, atol=4.9)  # of 10 between steps


@versions
def test_a_video_with_fewer_frames_than_rows_loses_its_episode(tmp_path, write):
    path = write_videos(tmp_path / "data", write)
    name = "chunk-000/episode_000001" if "2" in write.__name__ else "chunk-000/file-000"
    file = path / f"videos/{CAMERA}/{name}.mp4"
    write_video(file, greys([1] if "2" in write.__name__ else [0, 1])[:-2])
    bad = []
    assert [len(item) for item in ValidEpisodes(open_source(path), 0, bad.append)] == [4, 3]
    assert f"{file}: there is no frame at" in str(bad[0])
    assert "for step 4 of 6" in str(bad[0])


def test_invalid_videos_are_refused(tmp_path):
    path = write_videos(tmp_path / "data", library.write_lerobot_2)
    secret = tmp_path / "secret.mp4"
    write_video(secret, greys([1]))
    file = path / f"videos/{CAMERA}/chunk-000/episode_000001.mp4"
    # A list of other files, which a player would follow.
    file.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n")
    bad = []
    assert [len(item) for item in ValidEpisodes(open_source(path), 0, bad.append)] == [4, 3]
    assert f"{file}: not a whole MP4 video" in str(bad[0])
    file.unlink()
    bad = []
    assert [len(item) for item in ValidEpisodes(open_source(path), 0, bad.append)] == [4, 3]
    assert f"{file} is missing" in str(bad[0])


def test_frames_of_another_size_are_refused(tmp_path):
    path = write_videos(tmp_path / "data", library.write_lerobot_2)
    info = json.loads((path / "meta/info.json").read_text())
    info["features"][CAMERA]["shape"] = [3, 48, 32]
    (path / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DatasetError, match=r"the frames are \(32, 48, 3\), not \(48, 32, 3\)"):
        episodes(path)


def test_times_must_ascend(tmp_path):
    path = write_videos(tmp_path / "data", library.write_lerobot_2)
    file = path / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(file)
    index = table.column_names.index("timestamp")
    pq.write_table(table.set_column(index, "timestamp", [[0.0] * len(table)]), file)
    bad = []
    assert [len(item) for item in ValidEpisodes(open_source(path), 0, bad.append)] == [6, 3]
    assert "timestamp) do not ascend" in str(bad[0])
