"""The description of an environment that models and data sets store, as plain JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from rate.renamed import current_environment


@dataclass(frozen=True)
class EnvironmentSpec:
    """The spaces, target return and settings of an environment.

    Attributes:
        name: Short name, for example `tmaze`.
        observation_space: Space of one observation.
        action_space: Space of one action.
        target_return: The return-to-go at the first step of a rollout, in units of reward.
        options: The environment's settings, plain JSON types, by which it is made again.
        frame_stack: Frames of the environment that are stacked to one observation.
        recorded: The environment that the data come from, as they tell of it themselves: JSON of
            Gymnasium's `EnvSpec`, or empty. `rate.envs.recorded` understands it.
    """

    name: str
    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    target_return: float
    options: dict[str, Any] = field(default_factory=dict)
    frame_stack: int = 1
    recorded: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The specification as plain JSON types.

        Raises:
            ValueError: If a space is of a kind that JSON has no form for here.
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
        """The inverse of `to_dict`.

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
        except (KeyError, TypeError) as error:
            raise ValueError(f"the environment specification is incomplete: {error!r}") from error


def with_privileged_state(
    key: str, space: gymnasium.Space[Any], privileged: gymnasium.Space[Any]
) -> spaces.Dict:
    """The space of observations that show the privileged state beside what an agent sees.

    Args:
        key: Name of the part that an agent sees.
        space: Its space.
        privileged: The space of the part `privileged`.
    """
    # As pairs: of a dictionary Gymnasium would sort the keys, and encoders go by their order.
    return spaces.Dict([("privileged", privileged), (key, space)])


def space_to_dict(space: gymnasium.Space[Any]) -> dict[str, Any]:
    """A Box, Discrete, MultiDiscrete, MultiBinary or Dict space as plain JSON types.

    Raises:
        ValueError: For any other space, naming it.
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
        alone = not isinstance(space.n, tuple)  # of the two forms, which are not equal
        return {"type": "MultiBinary", "n": space.shape[0] if alone else list(space.shape)}
    if isinstance(space, spaces.Dict):
        items = {key: space_to_dict(item) for key, item in space.spaces.items()}
        return {"type": "Dict", "spaces": items}
    raise ValueError(
        f"the space {type(space).__name__} is not supported; "
        "use Box, Discrete, MultiDiscrete, MultiBinary or Dict"
    )


def space_from_dict(data: dict[str, Any]) -> gymnasium.Space[Any]:
    """The inverse of `space_to_dict`.

    Raises:
        ValueError: If the kind of space is unknown, naming it.
    """
    kind = data["type"]
    if kind == "Box":
        shape, dtype = tuple(data["shape"]), np.dtype(data["dtype"])
        low = _bound_from_json(data["low"], shape, dtype)
        high = _bound_from_json(data["high"], shape, dtype)
        return spaces.Box(low, high, shape, dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(int(data["n"]), start=int(data["start"]))
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(np.array(data["nvec"]), start=np.array(data["start"]))
    if kind == "MultiBinary":
        n = data["n"]
        return spaces.MultiBinary([int(size) for size in n] if isinstance(n, list) else int(n))
    if kind == "Dict":
        # As pairs: of a dictionary Gymnasium would sort the keys, and encoders go by their order.
        return spaces.Dict([(key, space_from_dict(item)) for key, item in data["spaces"].items()])
    raise ValueError(
        f"the space {kind!r} is not supported; "
        "use Box, Discrete, MultiDiscrete, MultiBinary or Dict"
    )


def _bound_to_json(bound: np.ndarray[Any, Any]) -> Any:
    """One number where all elements agree, else the flat list. JSON has no infinity: a string."""
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
