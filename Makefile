# make demo   the whole method on faces it draws itself: pre-train, fine-tune with and without that
#             on people who are not tested, evaluate; QUICK=1 make demo is the same, one subject
#             left out at a time, and too short to mean anything
# make test   all tests
# make faults kills, odd input and damaged files, done to the commands on purpose;
#             QUICK=1 make faults is a few of each kind (docs/reliability.md)
# make bench  how fast this machine pre-trains and fine-tunes, beside PyTorch (docs/performance.md)
# make lint   ruff
PYTHON ?= python3
VENV ?= .venv
RUN = runs/demo
REQUIREMENTS = $(shell nvidia-smi >/dev/null 2>&1 \
	&& echo requirements.txt || echo requirements-cpu.txt)

ifdef QUICK
PRESET = smoke
PRETRAIN = --clips=32 --steps=8 --batch-size=8
FINETUNE = --subjects=3 --clips-per-subject=6 --epochs=1 --batch-size=8
else
PRESET = bench
PRETRAIN = --clips=1000 --steps=500 --batch-size=16 --learning-rate=1e-3 --decay=0.05 \
	--reconstruction-loss=l2
FINETUNE = --protocol=kfold --folds=2 --subjects=40 --clips-per-subject=4 --amplitude=.15 \
	--epochs=40 --learning-rate=1e-3 --seeds=2
endif

.PHONY: demo test faults bench lint
demo: $(VENV)/installed
	$(VENV)/bin/python experiments/pretrain.py --source=synthetic --preset=$(PRESET) --space=pixel \
		$(PRETRAIN) --run=$(RUN)/pretrained --overwrite
	$(VENV)/bin/python experiments/finetune.py --target=synthetic --preset=$(PRESET) --init=none \
		--fusion=action $(FINETUNE) --run=$(RUN)/from-scratch --overwrite
	$(VENV)/bin/python experiments/finetune.py --target=synthetic --init=$(RUN)/pretrained \
		$(FINETUNE) --run=$(RUN)/from-pretrained --compare=$(RUN)/from-scratch --overwrite
	$(VENV)/bin/python experiments/evaluate.py --run=$(RUN)/from-pretrained
	@echo "pictures: $(RUN)/pretrained/reconstructions.png" \
		"$(RUN)/from-pretrained/confusion.png $(RUN)/from-pretrained/curves.png"

test: $(VENV)/installed-test  # two at once: a third would slow all
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

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
