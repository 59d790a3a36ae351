"""Files that declare an environment: requirements, pyproject.toml, locks, scripts, notebooks, environment.yml."""
