"""`--chat`: a conversation with a run's model, an exported folder or a base model, in the terminal or through a pipe.

`request.py` finds the model, `conversation.py` keeps what was said and asks; `terminal.py` is for a person, `pipe.py`
for a program.
"""

import sys

from commands.chat.conversation import Chat, ChatError, sampling_of
from commands.chat.pipe import answer_pipe
from commands.chat.request import ModelRequest, open_model
from commands.chat.terminal import Terminal
from config import ConfigError, ConfigParser
from config.chat_config import ChatConfig
from storage.log_lines import log_to_stderr
from train.loop.long_phases import long_phase


def command(request: ModelRequest) -> int:
    """Talk with a model.

    Args:
        request: which model; `ConfigParser` has the settings of the chat.

    Returns:
        The exit code.

    Raises:
        ModelError: the model can't be loaded.
        RunNotFoundError: there is no such run.
        ConfigError: a setting that the model can't do: a system message, or a base model beside it.
    """
    config = ConfigParser.get(ChatConfig)
    log_to_stderr()
    with long_phase(f"loading {request.text}"):
        model = open_model(request, config.device, config.precision)
    for line in model.lines():
        sys.stderr.write(f"{line}\n")
    chat = Chat(model, sampling_of(config))
    for setting, given, take in (
        ("system", config.system, lambda: chat.set_system(config.system)),
        ("compare", config.compare, chat.require_base),
    ):  # fmt: skip
        try:
            if given:
                take()
        except ChatError as error:
            raise ConfigError([f"{setting}: {error}"]) from error
    if sys.stdin.isatty():
        return Terminal(chat, config.compare).run()
    return answer_pipe(chat, config.compare)
