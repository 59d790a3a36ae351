"""What a checkpoint holds and when it is written.

`run_state.py` takes a run's state and puts it back, `process_state.py` what each of several processes has of its own,
`saver.py` decides when files are written. `provenance.py` notes from what a run was made (environment.json), and
`resume_check.py` compares that with what is there when a run goes on. The files themselves are
storage/checkpoint_store.
"""
