"""OpenAI's protocol: chat completions, completions, models and aliases."""
