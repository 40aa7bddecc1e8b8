"""Features that are conditioned on the return-to-go: decoupled from the tokens of a trajectory."""

from __future__ import annotations

from torch import Tensor, nn

from rate.config import ModelConfig


class ReturnCondition(nn.Module):
    """Adaptive layer normalisation by the newest return-to-go (arXiv 2601.15953).

        y_t = (1 + gamma(R_t)) * LN(h_t) + beta(R_t)

    The optimal action depends on the history of observations and actions and on the newest
    return-to-go alone, so that earlier ones need no tokens. gamma and beta are 0 at the start of
    training (Peebles and Xie 2023, arXiv 2212.09748, section 3.2).

    Args:
        config: The settings of the model.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, self.scale = config.d_model, config.return_scale
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, 2 * width))
        for parameter in self.modulation[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor, returns_to_go: Tensor) -> Tensor:
        """Features `(..., d)` of steps with returns-to-go `(..., 1)`."""
        wanted = (returns_to_go / self.scale).to(features.dtype)
        gamma, beta = self.modulation(wanted).chunk(2, dim=-1)
        out: Tensor = (1 + gamma) * self.norm(features) + beta
        return out
