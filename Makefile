# The README's two commands are `make demo` and `make test`. Both make a virtual environment on first use.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

PYTEST = $(BIN)/python -m pytest -n auto --dist worksteal -rs

.PHONY: demo teacher test check format lint types processors slow bench docs clean

demo: $(VENV)/.installed
	$(BIN)/distilsql demo

# Train the demo's teacher anew and put it into the package; an hour of one core, after which the demo is run with it.
TEACHER = src/distilsql/models/demo_teacher
teacher: $(VENV)/.installed
	$(BIN)/distilsql demo --train-teacher --out runs/teacher
	rm -rf $(TEACHER)
	cp -r runs/teacher/own-teacher/packed $(TEACHER)

# In parallel, one process a core; the budget is four minutes of two. `pytest FILE` alone is not parallel, which suits a
# debugger.
test: $(VENV)/.installed-dev
	$(PYTEST)

check: format lint types test

format: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check --no-cache .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

# Whatever computes, as other processors compute it: with AVX2 and nothing newer, with nothing newer than SSE 4, and with
# last bits of another kind (tests/other_rounding.py). ROUNDING is any number; CI takes another one for every commit. Slow
# tests are not among them: they run once.
NUMERIC = tests/distill tests/models tests/training tests/inference
ROUNDING ?= 0
processors: $(VENV)/.installed-dev
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 $(PYTEST) $(NUMERIC)
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE $(PYTEST) $(NUMERIC)
	$(PYTEST) --rounding $(ROUNDING) $(NUMERIC)

# What is not in `make test`. make slow PART=2/3: the second third of it. SEED is any number: of it are the examples that
# properties are tried on.
PART ?= 1/1
SEED ?= 0
slow: $(VENV)/.installed-dev
	$(PYTEST) -m slow --part $(PART) --hypothesis-seed $(SEED)

# make bench DATA=… STUDENT=… TEACHER=… [NAME=…]: the folder that holds spider/, and two transformers folders; NAME is what
# the pair is called in the results. Alone on the machine, an hour or two for a 135M pair; Qwen2.5-Coder-0.5B with a 1.5B
# teacher needs 21 GiB. docs/performance.md needs a place for the table of a new NAME. What bench/results/step_time.json holds already is not measured again.
DATA ?= $(DISTILSQL_DATA)
NAME ?= smollm2-135m
PAIR = --name $(NAME) --data $(DATA) --student $(STUDENT) --teacher $(TEACHER)
bench: $(VENV)/.installed-bench
	$(BIN)/python bench/step_time.py $(PAIR) --k 16 --windows 3 --contenders sft,rkd,kid,gkd-rkl,switch,trl-sft
	$(BIN)/python bench/step_time.py $(PAIR) --k 16 --windows 1 --contenders trl-sft-kept,trl-sft-tuned,trl-sft-float32,trl-gkd,trl-distillation,trl-distillation-tuned
	$(BIN)/python bench/step_time.py $(PAIR) --k 16 --windows 1 --contenders sft-padded,hf-loop,prefix-grouper,trl-sft-padding-free,trl-sft-packed
	$(BIN)/python bench/step_time.py $(PAIR) --k 4,8 --windows 1 --contenders sft,kid,gkd-rkl,switch,trl-sft
ifeq ($(NAME),smollm2-135m)
	$(BIN)/python bench/generate.py --data $(DATA) --model $(STUDENT) --questions 150
	$(BIN)/python bench/generate.py --data $(DATA) --model $(STUDENT) --questions 30 --precision float32
	$(BIN)/python bench/cost_growth.py
	$(BIN)/python bench/exactness.py --data $(DATA) --model $(STUDENT)
endif
	$(BIN)/python bench/performance.py

docs: $(VENV)/.installed
	$(BIN)/distilsql methods --markdown > docs/methods.md

# torch first and by itself: the pin in constraints.txt is what keeps other packages from choosing a newer build.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
