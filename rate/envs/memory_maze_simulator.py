"""The simulator behind Memory Maze, driven directly: same frames and rewards, many times faster.

The maze, the ball and the rules are those of the package memory-maze (Pasukonis et al. 2022,
arXiv:2210.13383) on dm_control. The same task is built from the package's own classes. Left out is
what cannot be seen from outside:

* its wrappers, and dm_control's observables, which every sub-step visits one by one. Positions are
  read from the physics instead, and one camera draws the frames of an episode, not one for each;
* a Python loop over all contacts for each target and sub-step. Far from all targets, all sub-steps
  are one call. Near one, a look at the array of contacts tells which target is to be asked;
* drawing what lies outside of the picture (see `_Scenery`);
* ten copies of the same eight wall textures: 16 textures are compiled and uploaded instead of 88;
* 64 MB for the shadows of lights, of which there are none, and room for pictures of 640 x 480;
* to build everything anew for another seed: the generators start again in the same simulator.

Nothing in these packages is changed, so that others may use them in the same process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rate.envs.headless import no_renderer
from rate.envs.memory_maze_packages import import_packages, without_absl_warnings

Array = npt.NDArray[Any]

# For each size (in cells, without the outer wall), as in `memory_maze.tasks`: the number of
# targets, the most rooms and the longest side of a room.
SIZES = {9: (3, 6, 5), 11: (4, 6, 5), 13: (5, 6, 5), 15: (6, 9, 3)}
FRAME = 64  # pixels

# Torques of wheel and steering, as in `memory_maze.tasks`: stay, forward, left, right, forward and
# left, forward and right.
CONTROLS = np.array([[0, 0], [-1, 0], [0, -1], [0, 1], [-1, -1], [-1, 1]], dtype=np.float64)
_ACTION_SECONDS = 0.25
_CELL = 2.0  # metres
_BORDER = 2  # pixels, in the colour of the requested target

# Metres, horizontally: ball and target touch within 0.8, and an action moves the ball 0.5 at most.
_NEAR = 2.0

_HIDDEN_GROUP = 5  # MuJoCo draws the groups 0 to 2


@dataclass(frozen=True)
class MazeState:
    """Where everything is, in cells from the bottom left corner inside the outer wall.

    Attributes:
        layout: `(size, size)` bool at `[y, x]`: where one can go.
        position: `(2,)`, the agent's x and y; its cell is their integer part.
        direction: `(2,)`, where it looks, a unit vector.
        target: `(2,)`, the requested target.
    """

    layout: npt.NDArray[np.bool_]
    position: npt.NDArray[np.float64]
    direction: npt.NDArray[np.float64]
    target: npt.NDArray[np.float64]


class MazeSimulator:
    """One Memory Maze of any seed.

    Args:
        size: Width and height in cells: 9, 11, 13 or 15.

    Raises:
        ConfigError: If a package is missing or nothing can draw.
    """

    def __init__(self, size: int) -> None:
        self._maze, textures, composer, self._engine, self._mujoco = import_packages()
        count, rooms, side = SIZES[size]
        self._rooms = {
            "max_rooms": rooms,
            "room_min_size": 3,
            "room_max_size": side,
            "spawns_per_room": 1,
        }
        self._arena = self._make_arena(size, textures.WallTextures("style_01"))
        self._walker = self._maze.RollingBallWithFriction(camera_height=0.3)
        self._task = self._maze.MemoryMazeTask(
            self._walker,
            self._arena,
            n_targets=count,
            target_radius=0.6,
            target_height_above_ground=-0.6,
            control_timestep=_ACTION_SECONDS,
        )
        for observable in self._task.observables.values():
            observable.enabled = False
        self._environment = composer.Environment(self._task, random_state=np.random.RandomState(0))
        self._offset = size / 2
        self._camera: Any = None

    def _make_arena(self, size: int, varied: Any) -> Any:
        """The walls and floors of `memory_maze.tasks`."""
        arena = self._maze.MazeWithTargetsArena(
            x_cells=size + 2,
            y_cells=size + 2,
            xy_scale=_CELL,
            z_height=1.5,
            targets_per_room=1,
            floor_textures=self._maze.FixedFloorTexture("style_01", ["blue", "blue_bright"]),
            wall_textures={
                "*": self._maze.FixedWallTexture("style_01", "yellow"),
                **{str(block): varied for block in range(10)},
            },
            random_seed=1,  # of the maze that `reset` replaces
            **self._rooms,
        )
        visual = arena.mjcf_model.visual
        visual.quality.shadowsize = 0
        size_of_picture = getattr(visual, "global")
        size_of_picture.offwidth = size_of_picture.offheight = FRAME
        return arena

    def reset(self, seed: int) -> Array:
        """Begin the episode that a new `memory_maze.tasks.memory_maze_9x9(seed=seed)` begins with.

        Args:
            seed: Not negative; those from 2^32 on, which the package does not take, are seeds too.

        Returns:
            The first frame, `(64, 64, 3)` uint8.

        Raises:
            ConfigError: If nothing can draw.
        """
        words = [seed >> shift & 0xFFFFFFFF for shift in range(0, max(1, seed.bit_length()), 32)]
        random = np.random.RandomState(words[0] if len(words) == 1 else words)
        old = self._arena.maze
        # The maze's own generator cannot be set to a state. It costs little to make a new one.
        self._arena._maze = self._maze.TextMazeVaryingWalls(
            height=old.height,
            width=old.width,
            max_variations=old.max_variations,
            objects_per_room=old.objects_per_room,
            simplify=True,
            random_seed=random.randint(2**31),
            **self._rooms,
        )
        self._environment.random_state.set_state(random.get_state())
        for target in self._task._targets:
            # The first colour is drawn before these are reset, from those that are not touched.
            target.initialize_episode_mjcf(None)
        self._camera = None  # of a model that goes now
        with without_absl_warnings():
            self._environment.reset()
        self._bind()
        return self._draw()

    def _bind(self) -> None:
        """Looks up the parts of the new model that every step reads."""
        self._physics = physics = self._environment.physics
        self._model, self._data = physics.model.ptr, physics.data.ptr
        self._targets = self._task._targets
        self._target_ids = np.array(physics.bind([item.geom for item in self._targets]).element_id)
        self._is_target = np.zeros(self._model.ngeom, dtype=bool)
        self._is_target[self._target_ids] = True
        self._body = int(physics.bind(self._walker.root_body).element_id)
        layer = self._arena.maze.entity_layer[-2:0:-1, 1:-1]  # without the outer wall, bottom first
        self._layout = np.isin(layer, [" ", "P", "G"])
        camera = self._walker.egocentric_camera
        try:
            self._camera = self._engine.Camera(physics, FRAME, FRAME, camera.full_identifier)
        except (RuntimeError, ImportError, AttributeError, self._mujoco.FatalError) as error:
            raise no_renderer(f"{type(error).__name__}: {error}") from error
        plane = self._mujoco.mjtGeom.mjGEOM_PLANE
        self._scenery = _Scenery(
            self._model, self._data, plane, int(physics.bind(camera).element_id)
        )

    def step(self, action: int) -> tuple[Array, float]:
        """Go on for a quarter of a second, in sub-steps of 5 ms.

        Returns:
            The frame after it, and 1.0 if the requested target was reached, else 0.0.
        """
        mujoco, model, data, physics = self._mujoco, self._model, self._data, self._physics
        data.ctrl[:] = CONTROLS[action]
        substeps = self._task.physics_steps_per_control_step
        ways = data.geom_xpos[self._target_ids, :2] - data.xpos[self._body, :2]
        if (np.abs(ways).max(axis=1) > _NEAR).all():
            physics.step(substeps)
        else:
            with physics.check_invalid_state():
                for _ in range(substeps):
                    mujoco.mj_step2(model, data)  # in this order in `physics.step`, too
                    mujoco.mj_step1(model, data)
                    self._notice_targets()
        self._task.after_step(physics, self._environment.random_state)
        return self._draw(), float(self._task.get_reward(physics))

    def _notice_targets(self) -> None:
        """Updates the targets that are touched for the first time."""
        touching = self._data.contact.geom  # (contacts, 2)
        if not self._is_target[touching].any():
            return
        for target, geom in zip(self._targets, self._target_ids, strict=True):
            if not target.activated and (touching == geom).any():
                target.after_substep(self._physics, None)

    def _draw(self) -> Array:
        """Renders the current frame with its border: `(64, 64, 3)` uint8, a new array."""
        self._scenery.hide_unseen()
        frame: Array = self._camera.render().copy()
        colour = self._task._target_colors[self._task._current_target_ix] * 255 * 0.7
        frame[:_BORDER] = frame[-_BORDER:] = colour.astype(np.uint8)
        frame[:, :_BORDER] = frame[:, -_BORDER:] = colour.astype(np.uint8)
        return frame

    @property
    def state(self) -> MazeState:
        """The true state now."""
        data, target = self._data, self._target_ids[self._task._current_target_ix]
        return MazeState(
            layout=self._layout,
            position=data.xpos[self._body, :2] / _CELL + self._offset,
            direction=data.xmat[self._body].reshape(3, 3)[:2, 1].copy(),
            target=data.geom_xpos[target, :2] / _CELL + self._offset,
        )

    def close(self) -> None:
        """Free the simulator's memory. It cannot be used after this."""
        self._camera = None
        self._environment.close()


class _Scenery:
    """The painted faces of walls and floors, each of which MuJoCo draws in a call of its own.

    A face whose four corners are all beyond one and the same side of the picture cannot be seen.
    Faces that look away from the camera are drawn, though hardly ever seen: at the edges of walls
    a sample may show them, and then leaving them out would change a pixel.
    """

    def __init__(self, model: Any, data: Any, plane: Any, camera: int) -> None:
        self._model, self._data, self._camera = model, data, camera
        self._faces = np.flatnonzero((model.geom_type == plane) & (model.geom_group == 0))
        axes = data.geom_xmat[self._faces].reshape(-1, 3, 3)
        across, along = (
            axes[:, :, axis] * model.geom_size[self._faces, axis, None] for axis in (0, 1)
        )
        signs = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
        self._corners = (  # (faces, 4, 3)
            data.geom_xpos[self._faces, None]
            + signs[:, :1] * across[:, None]
            + signs[:, 1:] * along[:, None]
        )
        # Two per cent and a centimetre wider than the picture: rounding shall not decide.
        self._slope = np.tan(np.deg2rad(model.cam_fovy[camera]) / 2) * 1.02

    def hide_unseen(self) -> None:
        """Culls the faces that are outside of the next frame."""
        axes = self._data.cam_xmat[self._camera].reshape(3, 3)
        corners = (self._corners - self._data.cam_xpos[self._camera]) @ axes
        x, y, z = np.moveaxis(corners, -1, 0)  # (faces, 4): right, up, backwards
        edge = 0.01 - z * self._slope
        sides = np.stack([x > edge, -x > edge, y > edge, -y > edge, z > 0])
        self._model.geom_group[self._faces] = _HIDDEN_GROUP * sides.all(axis=2).any(axis=0)
