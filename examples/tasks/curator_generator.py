# /// script
# requires-python = ">=3.10"
# dependencies = ["bespokelabs-curator==0.1.31"]
# ///
"""Rows to train on by curator, in an environment of its own (docs/tuning.md, More rows):

generator: {command: uv run curator_generator.py, rows: 100}

The model is that of the environment variable CURATOR_MODEL (gpt-4o-mini where there is none), its key is where curator
looks for it. curator keeps what it was answered, so that a second run asks for nothing twice.
"""

import json
import os
import sys

from bespokelabs import curator


class Rows(curator.LLM):
    """Asks for rows as `tune.py` would, and hands back what the model says."""

    def prompt(self, input):
        return json.loads(input["messages"])

    def parse(self, input, response):
        return {"id": input["id"], "text": response}


asked = [json.loads(line) for line in sys.stdin]
rows = [{"id": one["id"], "messages": json.dumps(one["messages"])} for one in asked]
# What curator prints goes where errors go: the output is for rows alone.
output = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)
made = Rows(model_name=os.environ.get("CURATOR_MODEL", "gpt-4o-mini"))(rows)
for row in made.dataset:
    output.write(json.dumps({"id": row["id"], "text": row["text"]}, ensure_ascii=False) + "\n")
output.close()
