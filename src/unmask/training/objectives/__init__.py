"""What is learned: tensors in, loss out, no model inside."""

from unmask.training.objectives.contrastive import info_nce, matryoshka
from unmask.training.objectives.gradcache import cached_backward
from unmask.training.objectives.mntp import Masked, Strategy, TokenLoss, mask_tokens, masked_token_loss

__all__ = [
    "Masked",
    "Strategy",
    "TokenLoss",
    "cached_backward",
    "info_nce",
    "mask_tokens",
    "masked_token_loss",
    "matryoshka",
]
