"""AdamW and its schedule, as all trainers of language models use them."""

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler

from config.language_config import LanguageConfig
from train.schedulers import warmup_cosine


def adamw(config: LanguageConfig, module: nn.Module) -> AdamW:
    """Return the optimizer of what is trained.

    Args:
        config: settings of the run.
        module: its parameters are optimized.
    """
    betas = (config.adam_betas[0], config.adam_betas[1])
    return AdamW(module.parameters(), lr=config.learning_rate, betas=betas, weight_decay=config.weight_decay)


def warmup_then_cosine(config: LanguageConfig, optimizer: AdamW, batches: int) -> LRScheduler:
    """Return the learning rate's schedule over a run: it rises, then falls along half a cosine.

    Args:
        config: settings of the run.
        optimizer: whose learning rate it is.
        batches: batches of an epoch.
    """
    steps = -(-batches // config.accumulation_steps) * config.epochs
    warmup = min(round(config.warmup_share * steps), steps - 1)
    return warmup_cosine(optimizer, warmup, steps, config.final_rate_share)
