#!/usr/bin/env bash
# Install the lowest version of every dependency that pyproject.toml allows, and run the quick tests and a conversion.
#
#     tests/lowest.sh [FOLDER]     the environment is made in FOLDER, by default .venv-lowest; `uv` has to be on the PATH
#
# torch comes as it is installed here or on the index, at the one version that is allowed.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv-lowest}
lowest=$(mktemp)
trap 'rm -f "$lowest"' EXIT

uv venv --quiet --python 3.11 "$venv"
uv pip install --quiet --python "$venv" torch==2.13.0
uv pip compile --quiet --resolution lowest-direct --python-version 3.11 --extra dev --extra litert \
  --no-annotate --no-header pyproject.toml | grep -vE '^(torch|triton|nvidia-.*|cuda-.*)==' >"$lowest"
uv pip install --quiet --python "$venv" --requirement "$lowest" setuptools
uv pip install --quiet --python "$venv" --no-deps --editable .

"$venv/bin/pytest" -m quick -n auto
"$venv/bin/pytest" -n auto tests/converters/test_agreement.py
