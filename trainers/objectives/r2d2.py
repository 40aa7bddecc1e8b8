"""The learner of R2D2 on recorded data (Kapturowski et al. 2019).

Double Q-learning with n-step targets, dueling networks, values on the scale
`h(x) = sign(x) (sqrt(|x| + 1) - 1) + 0.01 x`, and a burn-in: the first steps of a window warm the
memory up, and their errors do not count. Windows start from the initial state ("zero" in the
paper), since recorded data hold no states of a model. Windows are drawn as `data.window` and
`data.sampling` say, without priorities.
"""

from __future__ import annotations

from trainers.config_values import R2D2Config
from trainers.objectives.ddqn import DDQN


class R2D2(DDQN):
    """Double Q-learning with the settings of R2D2."""

    settings = R2D2Config
