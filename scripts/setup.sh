#!/usr/bin/env bash
# Installs what the build and the tools need and this machine lacks (Debian and Ubuntu). Sourced by the other scripts.
set -euo pipefail

packages=(
  g++ cmake ninja-build pkg-config ccache
  libdnnl-dev libopenblas-openmp-dev                            # matrix products
  nlohmann-json3-dev libcli11-dev                               # JSON, command lines
  libjpeg-dev libpng-dev libwebp-dev zlib1g-dev                 # pictures
  libfreetype-dev fonts-dejavu-core                             # text in pictures
  libcurl4-openssl-dev libssl-dev ca-certificates               # the Hugging Face Hub
  libboost-context-dev                                          # fibers of the simt device
  catch2                                                        # tests
  python3 python3-pip python3-venv python3-pil                  # the small tools that draw, and pyarrow
)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "install ok installed" || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
  echo "setup: installing ${missing[*]}" >&2
  as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
fi

# Arrow, which reads Parquet files: the distribution has none, but the pyarrow wheel brings its headers and libraries.
if ! ls .venv/lib/python3*/site-packages/pyarrow/libarrow.so.2[56]00 >/dev/null 2>&1; then
  echo "setup: installing pyarrow into .venv" >&2
  { /usr/bin/python3 -m venv .venv && .venv/bin/pip install --quiet --disable-pip-version-check 'pyarrow>=25,<27'; } >&2 ||
    echo "setup: pyarrow can't be installed: the programs will not read .parquet files" >&2
fi

# NVIDIA's cudnn-frontend, headers by which bench/attention times cuDNN beside our kernels. Only where nvcc is found.
if { [ -n "${CUDACXX:-}" ] || command -v nvcc || [ -x /usr/local/cuda/bin/nvcc ]; } >/dev/null &&
  ! ls .venv/lib/python3*/site-packages/include/cudnn_frontend.h >/dev/null 2>&1; then
  echo "setup: installing cudnn-frontend into .venv" >&2
  { { [ -x .venv/bin/pip ] || /usr/bin/python3 -m venv .venv; } &&
    .venv/bin/pip install --quiet --disable-pip-version-check --no-deps 'nvidia-cudnn-frontend>=1.15,<2'; } >&2 ||
    echo "setup: cudnn-frontend can't be installed: bench/attention will not time cuDNN" >&2
fi

# The distribution's Python has Pillow; another python3 on PATH may not.
python=/usr/bin/python3
jobs=$(nproc)
launcher=()
command -v ccache >/dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
