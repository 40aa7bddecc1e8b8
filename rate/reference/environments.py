"""What the public implementation decides from an environment's name: its encoders and its head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Convention:
    """The encoders and the head that the public code builds for one family of environments.

    A `*_tanh` flag holds only where the stored layer is an entry of a sequence (`ret_emb.0`): a
    layer that is stored bare (`ret_emb`) has nothing behind it, whatever its environment.

    Attributes:
        family: The name we give the family, for messages.
        patterns: Lower-case alphanumeric fragments; an environment whose name (punctuation
            removed) holds one of them belongs to the family.
        observation: `"vector"` (a linear layer), `"tokens"` (an embedding) or `"image"` (three
            convolutions and a linear layer).
        actions: Whether actions are class indices, real vectors, or either (told by the weights).
        padding_row: Whether the embedding of class indices has one row more than there are
            classes, for padded steps; None where the stored table tells.
        image_shape: `(C, H, W)` of an image.
        padding: Zero padding of each of the three convolutions, in pixels.
        image_tanh: A Tanh follows the image encoder.
        return_tanh: A Tanh follows the return-to-go encoder.
        index_tanh: A Tanh follows the embedding of a class index.
        vector_tanh: A Tanh follows the linear layer over a real action.
        head_tanh: A continuous head is Linear + Tanh (else: Linear alone).
    """

    family: str
    patterns: tuple[str, ...]
    observation: Literal["vector", "tokens", "image"] = "vector"
    actions: Literal["discrete", "continuous", "either"] = "discrete"
    padding_row: bool | None = None
    image_shape: tuple[int, int, int] = (0, 0, 0)
    padding: int = 0
    image_tanh: bool = True
    return_tanh: bool = False
    index_tanh: bool = True
    vector_tanh: bool = False
    head_tanh: bool = True


_MIKASA = (
    *("mikasa", "shellgame", "remembercolor", "remembershape", "intercept", "rotatelenient"),
    *("rotatestrict", "takeitback", "bunchofcolors", "seqofcolors", "chainofcolors"),
)

# Earlier rows win: POPGym's CartPole is POPGym's, not Gym's.
CONVENTIONS: tuple[Convention, ...] = (
    Convention(
        "popgym", ("popgym",), actions="either", index_tanh=False, vector_tanh=True, head_tanh=False
    ),
    Convention(
        "mikasa", _MIKASA, observation="image", image_shape=(6, 128, 128), actions="continuous"
    ),
    Convention(
        "vizdoom",
        ("vizdoom",),
        observation="image",
        padding_row=False,
        image_shape=(3, 64, 112),
        return_tanh=True,
    ),
    Convention(
        "memory_maze",
        ("memorymaze",),
        observation="image",
        image_shape=(3, 64, 64),
        padding=2,
        return_tanh=True,
    ),
    Convention(
        "minigrid",
        ("minigrid",),
        observation="image",
        image_shape=(3, 84, 84),
        image_tanh=False,
        index_tanh=False,
    ),
    Convention(
        "atari",
        ("atari", "breakout", "qbert", "seaquest", "pong"),
        observation="image",
        image_shape=(4, 84, 84),
        return_tanh=True,
    ),
    Convention("arshot", ("arshot",), observation="tokens"),
    Convention("mujoco", ("mujoco", "halfcheetah", "hopper", "walker"), actions="continuous"),
    Convention("tmaze", ("tmaze",), padding_row=True),
    Convention("aar", ("aar", "actionassociativeretrieval")),
    Convention("gym", ("cartpole", "mountaincar")),
)


def convention_for(env_name: str) -> Convention:
    """The convention of an environment's name.

    Raises:
        ValueError: No family of the public code matches the name.
    """
    plain = "".join(character for character in env_name.lower() if character.isalnum())
    for convention in CONVENTIONS:
        if any(pattern in plain for pattern in convention.patterns):
            return convention
    known = ", ".join(convention.family for convention in CONVENTIONS)
    raise ValueError(
        f"env_name={env_name!r}: the public code's encoders for it are not known. "
        f"Supported are names that contain one of: {known}"
    )
