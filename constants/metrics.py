"""Which way a metric is better, as its name says: `val_loss` falls, `val_accuracy` rises."""

import difflib
import re
from typing import Literal

Direction = Literal["min", "max"]

_FALLING = frozenset(
    re.findall(
        r"\w+",
        """loss error err errors perplexity ppl mae mse rmse rmsle mape smape wape nll bce ce crossentropy entropy kl
        kld divergence wer cer ter fid kid regret brier ece bpc bpb bpd bits deviance residual fpr fnr latency seconds
        lpips chamfer eer epe mpjpe hausdorff""",
    )
)
_RISING = frozenset(
    re.findall(
        r"\w+",
        """accuracy acc top f1 fbeta fscore auc auroc auprc roc ap map precision recall r2 kendall spearman pearson tau
        rho correlation corr bleu rouge meteor chrf iou miou jaccard dice ndcg dcg mrr hit hits psnr ssim mcc kappa
        sensitivity specificity tpr tnr reward return returns likelihood explained elbo purity nmi ari winrate""",
    )
)
_HUMP = re.compile(r"[A-Z]?[a-z]+\d*|[A-Z]+\d*(?![a-z])")  # of `valAccuracy`
_TURNED = frozenset({"neg", "negative", "negated", "inverse", "minus"})  # words after which a name means the opposite


def direction_of(name: str) -> Direction | None:
    """Return the direction in which a metric is better.

    The last word of the name that is known decides: `dice_loss` falls, `error_rate` too, `top1_accuracy` rises.

    Args:
        name: name of the metric, as in a history: `val_loss`, `val_f1@10`, `val/mAP50`.

    Returns:
        `min` or `max`; None where no word of the name is known, or one turns the meaning round (`neg_mse`).
    """
    words = re.findall(r"[A-Za-z0-9]+", name)
    lower = [word.lower() for word in words]
    if lower[-3:] == ["negative", "log", "likelihood"]:
        return "min"
    if _TURNED & set(lower):
        return None
    for word in reversed(words):
        for part in (word, *reversed(_HUMP.findall(word))):
            for known in (part.lower(), part.lower().rstrip("0123456789")):
                if known in _FALLING or known in _RISING:
                    return "min" if known in _FALLING else "max"
    return None


def near_metric(name: str) -> str | None:
    """Return what may have been meant by a name without a known word: `val_accuracy` by `val_acuracy`.

    Args:
        name: name of a metric, as in a history.
    """
    found = re.match(r"(.*?)([A-Za-z]{3,})\d*$", name)
    near = difflib.get_close_matches(found[2].lower(), sorted(_FALLING | _RISING), n=1, cutoff=0.8) if found else []
    return f"{found[1]}{near[0]}" if found and near else None
