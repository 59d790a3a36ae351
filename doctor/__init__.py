"""What is wrong with a Python environment, why, and the smallest change that mends it: `python doctor.py`.

Standard library, packaging and yaml only, so that it runs where torch does not. The patient is never imported: what is
installed is read from its files.

    facts: environment/ (read from files), sources/ (requirements, locks, scripts), failure/ (tracebacks and logs)
    knowledge/: released metadata and symbols; rules/: what is known of breakages nobody declares
    diagnosis/: facts and knowledge to findings, by the branches of one decision tree
    remedy/, proof/, memory/: the smallest change, tried in a scratch environment, remembered
"""
