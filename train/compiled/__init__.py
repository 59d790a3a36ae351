"""The fast forms of the optimizer step, for experts: each must equal train/steps/eager.py.

`fast.py` holds what they share and the compiled step, `epoch.py` many steps with the loop over them as one program,
`graph.py` the replayed step; `evaluation.py` is validation in these forms. `program.py` makes of a loss function what
can be compiled, train/side_effects.py sees what it does besides, `rule.py` is the optimizer's update as a function,
`compiling.py` calls torch.compile.
"""
