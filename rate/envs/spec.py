"""`EnvironmentSpec`: what models and data sets know of an environment, as plain JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from rate.renamed import current_environment
from rate.spaces import check_shape


@dataclass(frozen=True)
class EnvironmentSpec:
    """Spaces, target return and settings of an environment.

    Attributes:
        name: Short name, for example `tmaze`.
        observation_space: Space of one observation.
        action_space: Space of one action.
        target_return: The return-to-go at the first step of a rollout, in units of the reward.
        options: The environment's settings as plain JSON types; they recreate the environment.
        frame_stack: Number of the environment's frames that make one observation.
        recorded: The environment in which the data were recorded: the JSON of Gymnasium's
            `EnvSpec`, or empty if the data do not say. `rate.envs.recorded` parses it.
    """

    name: str
    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    target_return: float
    options: dict[str, Any] = field(default_factory=dict)
    frame_stack: int = 1
    recorded: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns the specification as plain JSON types.

        Raises:
            ValueError: If a space is not supported.
        """
        plain: dict[str, Any] = {
            "name": self.name,
            "observation_space": space_to_dict(self.observation_space),
            "action_space": space_to_dict(self.action_space),
            "target_return": float(self.target_return),
        }
        if self.options:
            plain["options"] = dict(self.options)
        if self.frame_stack > 1:
            plain["frame_stack"] = self.frame_stack
        if self.recorded:
            plain["recorded"] = self.recorded
        return plain

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EnvironmentSpec:
        """Returns the specification of `to_dict`, also of former versions.

        Raises:
            ValueError: If a field is missing or a space is unknown.
        """
        try:
            data = current_environment(data)
            return cls(
                name=str(data["name"]),
                observation_space=space_from_dict(data["observation_space"]),
                action_space=space_from_dict(data["action_space"]),
                target_return=float(data["target_return"]),
                options=dict(data.get("options", {})),
                frame_stack=int(data.get("frame_stack", 1)),
                recorded=str(data.get("recorded", "")),
            )
        except Exception as error:  # gymnasium raises many kinds for spaces that cannot be
            raise ValueError(
                f"the environment specification is incomplete or damaged: {error!r}"
            ) from error


def with_privileged_state(
    key: str, space: gymnasium.Space[Any], privileged: gymnasium.Space[Any]
) -> spaces.Dict:
    """Returns the Dict space of observations that hold the privileged state.

    Args:
        key: Name of the agent's own observation.
        space: The space of that observation.
        privileged: The space of the part `privileged`.
    """
    # Gymnasium sorts the keys of a dictionary, but not pairs; encoders depend on their order.
    return spaces.Dict([("privileged", privileged), (key, space)])


def space_to_dict(space: gymnasium.Space[Any]) -> dict[str, Any]:
    """Returns a Box, Discrete, MultiDiscrete, MultiBinary or Dict space as plain JSON types.

    Raises:
        ValueError: For any other space.
    """
    if isinstance(space, spaces.Box):
        return {
            "type": "Box",
            "shape": list(space.shape),
            "dtype": str(space.dtype),
            "low": _bound_to_json(space.low),
            "high": _bound_to_json(space.high),
        }
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {
            "type": "MultiDiscrete",
            "nvec": space.nvec.tolist(),
            "start": space.start.tolist(),
        }
    if isinstance(space, spaces.MultiBinary):
        alone = not isinstance(space.n, tuple)  # MultiBinary(3) and MultiBinary([3]) differ
        return {"type": "MultiBinary", "n": space.shape[0] if alone else list(space.shape)}
    if isinstance(space, spaces.Dict):
        items = {key: space_to_dict(item) for key, item in space.spaces.items()}
        return {"type": "Dict", "spaces": items}
    raise ValueError(
        f"the space {type(space).__name__} is not supported; "
        "use Box, Discrete, MultiDiscrete, MultiBinary or Dict"
    )


def space_from_dict(data: dict[str, Any]) -> gymnasium.Space[Any]:
    """Returns the space of `space_to_dict`.

    Raises:
        ValueError: If the kind of space is unknown.
    """
    kind = data["type"]
    if kind == "Box":
        shape, dtype = check_shape(data["shape"]), np.dtype(data["dtype"])
        low = _bound_from_json(data["low"], shape, dtype)
        high = _bound_from_json(data["high"], shape, dtype)
        return spaces.Box(low, high, shape, dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(int(data["n"]), start=int(data["start"]))
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(np.array(data["nvec"]), start=np.array(data["start"]))
    if kind == "MultiBinary":
        n = data["n"]
        shape = check_shape(n if isinstance(n, list) else [n])
        return spaces.MultiBinary(list(shape) if isinstance(n, list) else shape[0])
    if kind == "Dict":
        # Gymnasium sorts the keys of a dictionary, but not pairs; encoders depend on their order.
        return spaces.Dict([(key, space_from_dict(item)) for key, item in data["spaces"].items()])
    raise ValueError(
        f"the space {kind!r} is not supported; "
        "use Box, Discrete, MultiDiscrete, MultiBinary or Dict"
    )


def _bound_to_json(bound: np.ndarray[Any, Any]) -> Any:
    """Returns one number if all elements are equal, else a flat list; infinities are strings."""
    flat = [_number(value) for value in np.unique(bound).tolist()]
    if len(flat) == 1:
        return flat[0]
    return [_number(value) for value in bound.ravel().tolist()]


def _number(value: Any) -> Any:
    return value if np.isfinite(value) else str(value)


def _bound_from_json(
    value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> np.ndarray[Any, Any]:
    parse = float if np.issubdtype(dtype, np.floating) else int
    if isinstance(value, list):
        return np.array([parse(item) for item in value], dtype=dtype).reshape(shape)
    return np.full(shape, parse(value), dtype=dtype)
