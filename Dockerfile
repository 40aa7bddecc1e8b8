# The trainer in an image; its default command trains a memory agent on a CPU.
#
#   docker build -t rate-trainer .
#   docker run --rm -v "$PWD/runs:/app/runs" rate-trainer
#   docker build --build-arg TORCH_INDEX= --build-arg EXTRAS=vizdoom,minigrid -t rate-trainer:cuda .
#   docker run --rm --gpus all -v "$PWD/runs:/app/runs" rate-trainer:cuda \
#       rate train vizdoom --training.accelerator gpu
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

# PyTorch's CPU build. Empty: PyPI's build, with CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Optional parts of pyproject.toml, comma-separated.
ARG EXTRAS=

RUN apt-get update \
    && apt-get install --yes --no-install-recommends make git \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
# Dependencies first: they change less often than the code.
COPY pyproject.toml requirements.lock README.md LICENSE Makefile ./
COPY scripts/bootstrap.py scripts/
COPY rate rate
COPY datamodules datamodules
COPY trainers trainers
RUN PIP_EXTRA_INDEX_URL="$TORCH_INDEX" PIP_NO_CACHE_DIR=1 make install EXTRAS="$EXTRAS"

COPY . .
ENV PATH="/app/.venv/bin:$PATH"
CMD ["make", "train"]
