"""`python train.py --new`: writes a trainer, its config, its section of config.ini and its test from a model.

- `model`: which settings the model's constructor takes;
- `probe`: which samples its forward takes, found out by trying;
- `sizes`: which numbers in their shapes follow which settings, likewise;
- `templates` and `synthetic`: the text of the files, the latter that of the data;
- `writing`: puts all together, and writes all of it or nothing.
"""

from commands.scaffold.writing import scaffold

__all__ = ["scaffold"]
