"""What changes the odds of a sample's next token by what came before it: penalties, a bias, a grammar."""

from collections import Counter
from collections.abc import Collection

import torch
from torch import Tensor

from llm.sampling_settings import SamplingSettings
from llm.token_grammar import GrammarState, TokenGrammars


class TokenRules:
    """The rules of one sample.

    Args:
        settings: settings that name rules (`SamplingSettings.has_rules`).
        grammar: the state of its grammar; None where there is none.
        device: where the logits are.
    """

    def __init__(self, settings: SamplingSettings, grammar: GrammarState | None, device: torch.device) -> None:
        self._settings, self._grammar, self._device = settings, grammar, device
        self._counts: Counter[int] = Counter()
        pairs = settings.logit_bias
        self._biased = torch.tensor([token for token, _ in pairs], dtype=torch.int64, device=device)
        self._biases = torch.tensor([bias for _, bias in pairs], dtype=torch.float32, device=device)

    def apply(self, logits: Tensor) -> None:
        """Change the logits of the next token, in place.

        Args:
            logits: (vocabulary,), float32. Tokens that the grammar forbids become -inf.

        Raises:
            EngineError: the grammar can't be followed.
        """
        presence, frequency = self._settings.presence_penalty, self._settings.frequency_penalty
        if self._counts and (presence or frequency):
            tokens = torch.tensor(list(self._counts), device=self._device)
            times = torch.tensor(list(self._counts.values()), dtype=torch.float32, device=self._device)
            logits[tokens] -= presence + frequency * times
        if len(self._biased):
            logits[self._biased] += self._biases
        if self._grammar is not None:
            allowed = torch.from_numpy(self._grammar.allowed()).to(self._device)
            logits.masked_fill_(~allowed, -torch.inf)

    def take(self, token: int, ends: bool) -> bool:
        """Note a token that was drawn.

        Args:
            token: its id.
            ends: whether it ends the sample.

        Returns:
            Whether the grammar's text is whole and no token may follow.

        Raises:
            EngineError: the grammar can't be followed.
        """
        self._counts[token] += 1
        return self._grammar is not None and not ends and self._grammar.take(token)


def rules_of(
    settings: SamplingSettings, grammars: TokenGrammars | None, ends: Collection[int], device: torch.device
) -> TokenRules | None:
    """Return the rules of a sample that begins; None where its tokens are drawn from the model as it is.

    Args:
        settings: its settings.
        grammars: reads grammars; None where the model has no tokenizer.
        ends: ids that end it.
        device: where the logits are.
    """
    if not settings.has_rules:
        return None
    state = None
    if settings.grammar is not None and grammars is not None:
        state = grammars.begin(settings.grammar, ends)
    return TokenRules(settings, state, device)
