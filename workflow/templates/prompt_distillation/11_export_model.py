"""Fetches the adapter of the lowest validation loss in PEFT's form, and the tokenizer: models/CHARACTER_distilled/."""

import shutil
import sys
import time
import urllib.request
from pathlib import Path

import tinker

from distillation import TOKENIZER, read_rows, service, tell, write_text

model, character = sys.argv[1:]
best = min(read_rows("checkpoints/checkpoints.jsonl"), key=lambda one: one["validation_loss"])
folder = Path("models") / f"{character}_distilled"
new = folder.with_name(f"{folder.name}.new")
shutil.rmtree(new, ignore_errors=True)
shutil.copytree(TOKENIZER, new)
with service(model) as client:
    training = client.create_training_client_from_state(best["path"]).result()
    name = f"export-{best['step']:06d}-{int(time.time())}"
    kept = training.save_weights_external(name, ttl_seconds=3600).result().path
    urls = tinker.RestClient().get_external_weights_urls(kept).result().urls
    for done, (name, url) in enumerate(sorted(urls.items()), 1):
        with urllib.request.urlopen(url, timeout=600) as answer, (new / Path(name).name).open("wb") as stream:
            shutil.copyfileobj(answer, stream)
        tell(done=done, total=len(urls), unit="files")
text = f"""# {character}, distilled

An adapter (LoRA, PEFT's files) for {model}: it answers as that model does behind the prompt of {character},
without reading the prompt. It is the checkpoint of step {best["step"]}, whose loss on held-out questions is the lowest:
{best["validation_loss"]:.4f} nats a token. Ask by the chat template of this tokenizer, without a system message.
"""
write_text(new / "README.md", text)
shutil.rmtree(folder, ignore_errors=True)
new.rename(folder)
print(f"{folder}/ has the adapter of step {best['step']}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
