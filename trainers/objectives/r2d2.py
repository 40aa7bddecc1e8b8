"""The learner of R2D2 (Kapturowski et al. 2019).

Double Q-learning with n-step targets, dueling networks, values on the scale
`h(x) = sign(x) (sqrt(|x| + 1) - 1) + 0.01 x`, and a burn-in: the first steps of a window warm the
memory up, and their errors do not count. Online, unrolls start from the state that they were acted
from, and are drawn by priority. Windows of recorded data start from the initial state ("zero" in
the paper), since such data hold no states of a model.
"""

from __future__ import annotations

from trainers.config_values import R2D2Config
from trainers.objectives.ddqn import DDQN


class R2D2(DDQN):
    """Double Q-learning with the settings of R2D2."""

    settings = R2D2Config
