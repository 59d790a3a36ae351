"""What the controller of agentlightning 1.0 starts for each rollout: an agent of the examples, as it is."""

import importlib
import json
import os
import urllib.request

from openai import OpenAI


class Agent:
    """Plays the agent that the environment names, `module:function`, and tells the gateway its reward."""

    def run(self):
        """Do one task."""
        module, _, name = os.environ["AGENT"].partition(":")
        client = OpenAI(base_url=os.environ["AGL_OPENAI_BASE_URL"], api_key=os.environ["AGL_KEY"] or "none")
        found = getattr(importlib.import_module(module), name)(json.loads(os.environ["TASK"]), client)
        reward = found["reward"] if isinstance(found, dict) else found
        told = json.dumps({"event_type": "reward", "data": {"value": float(reward)}}).encode()
        request = urllib.request.Request(os.environ["AGL_EVENT_URL"], told, {"Content-Type": "application/json"})
        urllib.request.urlopen(request).close()
