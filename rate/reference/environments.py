"""What the public implementation decides from an environment's name: its encoders and its head."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Form = Literal["bare", "tanh", "stored", "linear"]
"""How a single-layer encoder is stored, and what follows the layer.

- `"bare"`: the layer alone (`ret_emb.weight`). Nothing follows.
- `"tanh"`: a sequence (`ret_emb.0.weight`) of the layer and a Tanh.
- `"stored"`: either of the two above; the state dict tells which.
- `"linear"`: the layer alone or in a sequence. Nothing follows in either.
"""


@dataclass(frozen=True)
class Convention:
    """The encoders and the head that the public code builds for one family of environments.

    A Tanh leaves no weight behind, but the sequence that holds it does: weights that are stored
    in another form than the family's are another family's, and are refused as such.

    Attributes:
        family: The name we give the family, for messages.
        pattern: A regular expression. An environment belongs to the family if it is found in its
            name, in lower case and without punctuation.
        observation: `"vector"` (a linear layer), `"tokens"` (an embedding) or `"image"` (three
            convolutions and a linear layer).
        actions: Whether actions are class indices, real vectors, or either (told by the weights).
        padding_row: Whether the embedding of class indices has one row more than there are
            classes, for padded steps; None where the stored table tells.
        counts_padding: `act_dim` counts padding as one more action, so that an embedding of
            `act_dim` rows has a row for it, the last.
        image_shape: `(C, H, W)` of an image.
        padding: Zero padding of each of the three convolutions, in pixels.
        image_tanh: A Tanh follows the image encoder.
        returns: Form of the return-to-go encoder, a linear layer.
        index: Form of the embedding of a class index.
        vector: Form of the linear layer over a real action.
        head: Form of the head of real actions. That of class indices is always bare.
    """

    family: str
    pattern: str
    observation: Literal["vector", "tokens", "image"] = "vector"
    actions: Literal["discrete", "continuous", "either"] = "discrete"
    padding_row: bool | None = None
    counts_padding: bool = False
    image_shape: tuple[int, int, int] = (0, 0, 0)
    padding: int = 0
    image_tanh: bool = True
    returns: Form = "bare"
    index: Form = "tanh"
    vector: Form = "bare"
    head: Form = "tanh"


_MIKASA = (
    "mikasa|shellgame|remembercolor|remembershape|intercept|rotatelenient|rotatestrict|takeitback|"
    "bunchofcolors|seqofcolors|chainofcolors"
)

# Earlier rows win: POPGym's CartPole is POPGym's, not Gym's.
CONVENTIONS: tuple[Convention, ...] = (
    Convention("popgym", "popgym", actions="either", index="linear", vector="tanh", head="linear"),
    Convention(
        "mikasa", _MIKASA, observation="image", image_shape=(6, 128, 128), actions="continuous"
    ),
    Convention(
        "vizdoom",
        "vizdoom",
        observation="image",
        padding_row=False,
        image_shape=(3, 64, 112),
        returns="tanh",
    ),
    Convention(
        "memory_maze",
        "memorymaze",
        observation="image",
        image_shape=(3, 64, 64),
        padding=2,
        returns="tanh",
    ),
    Convention(
        "minigrid",
        "minigrid",
        observation="image",
        counts_padding=True,
        image_shape=(3, 84, 84),
        image_tanh=False,
        index="linear",
    ),
    Convention(
        "atari",
        "atari|breakout|qbert|seaquest|pong",
        observation="image",
        image_shape=(4, 84, 84),
        returns="tanh",
    ),
    Convention("arshot", "arshot", observation="tokens"),
    # The name `mujoco` alone is without a Tanh behind its actions; every task's own name, also
    # followed by its data set's, has one.
    Convention("mujoco", "^mujoco$", actions="continuous"),
    Convention(
        "hopper, halfcheetah, walker2d",
        "hopper|halfcheetah|walker2d",
        actions="continuous",
        vector="tanh",
    ),
    Convention("tmaze", "tmaze", padding_row=True),
    Convention("aar", "aar|actionassociativeretrieval"),
    Convention(
        "CartPole, MountainCar, MountainCarContinuous, Acrobot, Pendulum",
        r"^(cartpole|mountaincar|mountaincarcontinuous|acrobot|pendulum)(v\d+)?$",
        actions="either",
        index="stored",
        vector="stored",
        head="stored",
    ),
)


def convention_for(env_name: str) -> Convention:
    """The convention of an environment's name.

    Raises:
        ValueError: No family of the public code matches the name.
    """
    plain = "".join(character for character in env_name.lower() if character.isalnum())
    for convention in CONVENTIONS:
        if re.search(convention.pattern, plain):
            return convention
    known = ", ".join(convention.family for convention in CONVENTIONS)
    raise ValueError(
        f"env_name={env_name!r}: the public code's encoders for it are not known. "
        f"Supported are names that contain one of: {known}"
    )
