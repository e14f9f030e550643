# make demo   the whole method on faces it draws itself: pre-train, leave one subject out with and
#             without that, evaluate; QUICK=1 make demo is the same, too short to mean anything
# make test   all tests
# make faults kills, odd input and damaged files, done to the commands on purpose, for hours;
#             QUICK=1 make faults is a few of each kind (docs/reliability.md)
# make bench  how fast this machine pre-trains and fine-tunes, beside PyTorch (docs/performance.md)
# make lint   ruff
PYTHON ?= python3
VENV ?= .venv
RUN = runs/demo
REQUIREMENTS = $(shell nvidia-smi >/dev/null 2>&1 \
	&& echo requirements.txt || echo requirements-cpu.txt)

ifdef QUICK
PRETRAIN = --clips=32 --steps=8 --batch-size=8
FINETUNE = --subjects=3 --clips-per-subject=6 --epochs=1 --batch-size=8
else
PRETRAIN = --clips=400 --steps=600 --batch-size=16 --learning-rate=1e-3
FINETUNE = --subjects=8 --clips-per-subject=14 --epochs=20 --learning-rate=3e-3
endif

.PHONY: demo test faults bench lint
demo: $(VENV)/installed
	$(VENV)/bin/python experiments/pretrain.py --source=synthetic --preset=tiny --space=pixel \
		$(PRETRAIN) --run=$(RUN)/pretrained --overwrite
	$(VENV)/bin/python experiments/finetune.py --target=synthetic --preset=tiny --init=none \
		$(FINETUNE) --run=$(RUN)/from-scratch --overwrite
	$(VENV)/bin/python experiments/finetune.py --target=synthetic --init=$(RUN)/pretrained \
		$(FINETUNE) --run=$(RUN)/from-pretrained --compare=$(RUN)/from-scratch --overwrite
	$(VENV)/bin/python experiments/evaluate.py --run=$(RUN)/from-pretrained
	@echo "pictures: $(RUN)/pretrained/reconstructions.png" \
		"$(RUN)/from-pretrained/confusion.png $(RUN)/from-pretrained/curves.png"

test: $(VENV)/installed-test
	$(VENV)/bin/python -m pytest -n 3 --dist loadfile  # three at a time, a file each; two cores are then never idle

faults: $(VENV)/installed-test
	$(VENV)/bin/python tests/faults $(if $(QUICK),--quick)

bench: $(VENV)/installed-test
	$(VENV)/bin/python -m benchmarks

lint: $(VENV)/installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

$(VENV)/installed: requirements.txt requirements-cpu.txt requirements-cuda12.txt constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --upgrade pip
	$(VENV)/bin/pip install --quiet -c constraints.txt -r $(REQUIREMENTS)
	touch $@

$(VENV)/installed-test: $(VENV)/installed requirements-test.txt
	$(VENV)/bin/pip install --quiet -c constraints.txt -r requirements-test.txt
	touch $@
