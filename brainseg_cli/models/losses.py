"""What training minimises. All take logits (N, 1, H, W) and a reference (N, 1, H, W) in {0, 1}, as floats.

The overlap losses take their sums over the whole batch and are smoothed in numerator and denominator, so that
on a batch without tumour they still fall as false alarms fade: with nothing to find, the Dice loss is
P / (P + smoothing) for a predicted sum of P. (segmentation-models-pytorch sets its Dice, Jaccard and Tversky
losses to zero on such a batch, hence ours.)
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from brainseg_cli.config import LossConfig

Loss = Callable[[Tensor, Tensor], Tensor]


def build_loss(config: LossConfig) -> Loss:
    """The loss of that name: (logits, reference) -> a scalar."""
    smoothing = config.smoothing

    def dice(logits: Tensor, reference: Tensor) -> Tensor:
        return compute_tversky_loss(logits, reference, 0.5, 0.5, smoothing)

    def dice_and_bce(logits: Tensor, reference: Tensor) -> Tensor:
        return dice(logits, reference) + functional.binary_cross_entropy_with_logits(logits, reference)

    def jaccard(logits: Tensor, reference: Tensor) -> Tensor:
        return compute_tversky_loss(logits, reference, 1.0, 1.0, smoothing)

    def tversky(logits: Tensor, reference: Tensor) -> Tensor:
        alpha = config.tversky_alpha
        return compute_tversky_loss(logits, reference, alpha, 1 - alpha, smoothing)

    def focal(logits: Tensor, reference: Tensor) -> Tensor:
        return compute_focal_loss(logits, reference, config.focal_gamma)

    losses: dict[str, Loss] = {
        "dice": dice,
        "bce": functional.binary_cross_entropy_with_logits,
        "dice+bce": dice_and_bce,
        "focal": focal,
        "tversky": tversky,
        "jaccard": jaccard,
        "lovasz": compute_lovasz_hinge,
    }
    return losses[config.name]


def compute_tversky_loss(logits: Tensor, reference: Tensor, alpha: float, beta: float, smoothing: float) -> Tensor:
    """1 - (TP + s/2) / (TP + alpha FP + beta FN + s/2), soft, over the batch (Salehi et al. 2017).

    alpha = beta = 1/2 is Dice, alpha = beta = 1 Jaccard.
    """
    probs = logits.sigmoid()
    hits = (probs * reference).sum()
    false_alarms, misses = probs.sum() - hits, reference.sum() - hits
    half = smoothing / 2
    return 1 - (hits + half) / (hits + alpha * false_alarms + beta * misses + half)


def compute_focal_loss(logits: Tensor, reference: Tensor, gamma: float) -> Tensor:
    """Cross-entropy weighted by (1 - p of the true class) ** gamma, mean over pixels (Lin et al. 2017)."""
    entropy = functional.binary_cross_entropy_with_logits(logits, reference, reduction="none")
    # above 0: the slope of 0 ** gamma is infinite for a gamma below 1
    wrong = (-torch.expm1(-entropy)).clamp_min(torch.finfo(entropy.dtype).tiny)
    return (wrong**gamma * entropy).mean()


def compute_lovasz_hinge(logits: Tensor, reference: Tensor) -> Tensor:
    """The Lovasz extension of the Jaccard loss on hinge errors, over the batch (Berman et al. 2018)."""
    flat, truth = logits.reshape(-1), reference.reshape(-1)
    errors = 1 - flat * (2 * truth - 1)
    errors, order = errors.sort(descending=True)
    truth = truth[order]
    intersection = truth.sum() - truth.cumsum(0)
    union = truth.sum() + (1 - truth).cumsum(0)
    jaccard = 1 - intersection / union
    steps = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
    return torch.dot(errors.relu(), steps)
