"""Fetches the adapter in peft's form: adapter_config.json and adapter_model.safetensors in model/."""

import shutil
import sys
import time
import urllib.request
from pathlib import Path

from tinker_service import lost_connections, read_rows, service

model = sys.argv[1]
last = read_rows("results/checkpoints.jsonl")[-1]
new = Path("model.new")
shutil.rmtree(new, ignore_errors=True)
new.mkdir()
with lost_connections(), service(model) as client:
    training = client.create_training_client_from_state(last["path"]).result()
    kept = (
        training.save_weights_external(f"export-{last['step']:06d}-{int(time.time())}", ttl_seconds=3600).result().path
    )
    for name, url in client.create_rest_client().get_external_weights_urls(kept).result().urls.items():
        with urllib.request.urlopen(url, timeout=600) as answer, (new / Path(name).name).open("wb") as stream:
            shutil.copyfileobj(answer, stream)
shutil.rmtree("model", ignore_errors=True)
new.rename("model")
print(f"model/ has the adapter of step {last['step']}")
