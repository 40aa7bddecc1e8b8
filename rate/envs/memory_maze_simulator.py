"""A fast simulator of Memory Maze: the same frames and rewards as the package's environment.

Maze, ball and rules are those of the package memory-maze (Pasukonis et al. 2022, arXiv:2210.13383)
on dm_control; the task is built from the package's classes. It is faster because these are omitted,
without an effect on frames and rewards:

* wrappers, and dm_control's observables, which are updated one by one at each sub-step. Positions
  are read from the physics instead, and one camera renders all frames of an episode;
* the Python loop over all contacts for each target and sub-step. Far from all targets, the
  sub-steps are one call; near one, the array of contacts tells which target is touched;
* rendering of faces outside the camera's view (see `_Scenery`);
* ten copies of the same eight wall textures: 16 textures are compiled and uploaded instead of 88;
* 64 MB of shadow maps, though no light casts shadows, and buffers for images of 640 x 480;
* rebuilding the simulator for another seed: its random generators are reseeded instead.

The packages are not patched, so other code in the process can use them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rate.envs.headless import no_renderer
from rate.envs.memory_maze_packages import import_packages, without_absl_warnings

Array = npt.NDArray[Any]

# By size (in cells, without the outer wall), as in `memory_maze.tasks`: the number of targets, the
# largest number of rooms and the longest side of a room.
SIZES = {9: (3, 6, 5), 11: (4, 6, 5), 13: (5, 6, 5), 15: (6, 9, 3)}
FRAME = 64  # pixels

# Controls of wheel and steering, as in `memory_maze.tasks`: stay, forward, left, right, forward and
# left, forward and right.
CONTROLS = np.array([[0, 0], [-1, 0], [0, -1], [0, 1], [-1, -1], [-1, 1]], dtype=np.float64)
_ACTION_SECONDS = 0.25
_CELL = 2.0  # metres
FIELD_OF_VIEW = np.deg2rad(80)  # of the camera, in both directions
_BORDER = 2  # pixels; the border has the colour of the requested target

# Horizontal distance in metres. Ball and target touch within 0.8; an action moves the ball by 0.5
# at most.
_NEAR = 2.0

_HIDDEN_GROUP = 5  # MuJoCo draws the groups 0 to 2


@dataclass(frozen=True)
class MazeState:
    """State of the maze. Positions are in cells from the bottom left corner inside the outer wall.

    Attributes:
        layout: `(size, size)` bool at `[y, x]`: True where a cell is free.
        position: The agent's x and y, `(2,)`; their integer parts are its cell.
        direction: Unit vector `(2,)` of the agent's heading.
        target: Position of the requested target, `(2,)`.
        targets: Positions of all targets, `(n, 2)`.
    """

    layout: npt.NDArray[np.bool_]
    position: npt.NDArray[np.float64]
    direction: npt.NDArray[np.float64]
    target: npt.NDArray[np.float64]
    targets: npt.NDArray[np.float64]


class MazeSimulator:
    """A simulator of Memory Maze, for episodes of any seed.

    Args:
        size: Width and height in cells: 9, 11, 13 or 15.

    Raises:
        ConfigError: If a package is missing or MuJoCo cannot render.
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
        """Returns an arena with the walls and floors of `memory_maze.tasks`."""
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
            random_seed=1,  # `reset` replaces this maze
            **self._rooms,
        )
        visual = arena.mjcf_model.visual
        visual.quality.shadowsize = 0
        size_of_picture = getattr(visual, "global")
        size_of_picture.offwidth = size_of_picture.offheight = FRAME
        return arena

    def reset(self, seed: int) -> Array:
        """Starts the episode of a new `memory_maze.tasks.memory_maze_9x9(seed=seed)`.

        Args:
            seed: At least 0. Seeds from 2^32 on are accepted too, unlike by the package.

        Returns:
            The first frame, `(64, 64, 3)` uint8.

        Raises:
            ConfigError: If MuJoCo cannot render.
        """
        words = [seed >> shift & 0xFFFFFFFF for shift in range(0, max(1, seed.bit_length()), 32)]
        random = np.random.RandomState(words[0] if len(words) == 1 else words)
        old = self._arena.maze
        # The maze's generator cannot be reseeded; a new maze object costs little.
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
            # The package samples the first colour before it resets the targets, among those that
            # are not activated.
            target.initialize_episode_mjcf(None)
        self._camera = None  # it belongs to the model that the reset replaces
        with without_absl_warnings():
            self._environment.reset()
        self._bind()
        return self._draw()

    def _bind(self) -> None:
        """Looks up the ids and arrays that each step reads from the new model."""
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
        """Simulates one action, 0.25 s in sub-steps of 5 ms.

        Returns:
            The frame after the action, and the reward: 1.0 if the requested target was reached.
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
                    mujoco.mj_step2(model, data)  # the order of `physics.step`
                    mujoco.mj_step1(model, data)
                    self._notice_targets()
        self._task.after_step(physics, self._environment.random_state)
        return self._draw(), float(self._task.get_reward(physics))

    def _notice_targets(self) -> None:
        """Activates targets that are touched for the first time."""
        touching = self._data.contact.geom  # (contacts, 2)
        if not self._is_target[touching].any():
            return
        for target, geom in zip(self._targets, self._target_ids, strict=True):
            if not target.activated and (touching == geom).any():
                target.after_substep(self._physics, None)

    def _draw(self) -> Array:
        """Returns the current frame with its border, `(64, 64, 3)` uint8; a copy."""
        self._scenery.hide_unseen()
        frame: Array = self._camera.render().copy()
        colour = self._task._target_colors[self._task._current_target_ix] * 255 * 0.7
        frame[:_BORDER] = frame[-_BORDER:] = colour.astype(np.uint8)
        frame[:, :_BORDER] = frame[:, -_BORDER:] = colour.astype(np.uint8)
        return frame

    @property
    def state(self) -> MazeState:
        """The current state."""
        data = self._data
        targets = data.geom_xpos[self._target_ids, :2] / _CELL + self._offset
        return MazeState(
            layout=self._layout,
            position=data.xpos[self._body, :2] / _CELL + self._offset,
            direction=data.xmat[self._body].reshape(3, 3)[:2, 1].copy(),
            target=targets[self._task._current_target_ix],
            targets=targets,
        )

    def close(self) -> None:
        """Frees the simulator, which cannot be used afterwards."""
        self._camera = None
        self._environment.close()


class _Scenery:
    """Frustum culling of the textured faces of walls and floors; MuJoCo has a draw call for each.

    A face is invisible if all four corners lie beyond the same side of the view frustum. Faces that
    point away from the camera are rendered all the same: at the edges of walls an antialiasing
    sample may hit them, so culling them would change pixels.
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
        # The frustum is 2 % and 1 cm wider than the image, so that rounding never hides a face.
        self._slope = np.tan(np.deg2rad(model.cam_fovy[camera]) / 2) * 1.02

    def hide_unseen(self) -> None:
        """Hides the faces that the next frame does not show."""
        axes = self._data.cam_xmat[self._camera].reshape(3, 3)
        corners = (self._corners - self._data.cam_xpos[self._camera]) @ axes
        x, y, z = np.moveaxis(corners, -1, 0)  # (faces, 4): right, up, backwards
        edge = 0.01 - z * self._slope
        sides = np.stack([x > edge, -x > edge, y > edge, -y > edge, z > 0])
        self._model.geom_group[self._faces] = _HIDDEN_GROUP * sides.all(axis=2).any(axis=0)
