#!/usr/bin/env bash
# Type-checks the CUDA build without a CUDA toolkit: a stand-in for nvcc answers what the build scripts ask and writes empty
# outputs. Nothing it makes can run. Its own target folder keeps the ordinary build untouched.
set -euo pipefail
cd "$(dirname "$0")/.."

stand_in="$PWD/target/cuda-stand-in"
mkdir -p "$stand_in/bin" "$stand_in/include" "$stand_in/lib64"
touch "$stand_in/include/cuda.h" "$stand_in/include/cuda_runtime.h"
cat > "$stand_in/bin/nvcc" <<'NVCC'
#!/usr/bin/env bash
output="" folder="" source="" mode=""
while [ $# -gt 0 ]; do
  case "$1" in
    --version)
      # cudarc reads the release from the fourth line.
      printf '%s\n' "nvcc: NVIDIA (R) Cuda compiler driver" "-" "-" "Cuda compilation tools, release 13.0, V13.0.88" "-"
      exit 0 ;;
    --list-gpu-code) printf 'sm_80\nsm_90\n'; exit 0 ;;
    -o) output="$2"; shift ;;
    --output-directory) folder="$2"; shift ;;
    --output-directory=*) folder="${1#*=}" ;;
    --ptx | -ptx) mode=ptx ;;
    -c) mode=object ;;
    --lib) mode=library ;;
    *.cu) source="$1" ;;
  esac
  shift
done
case "$mode" in
  ptx) printf '.version 9.0\n.target sm_90\n.address_size 64\n' > "${output:-$folder/$(basename "${source%.cu}").ptx}" ;;
  object) echo 'int stand_in;' | cc -x c -c - -o "$output" ;;
  library) ar rcs "$output" ;;
esac
NVCC
chmod +x "$stand_in/bin/nvcc"

export CUDA_HOME="$stand_in" CUDA_PATH="$stand_in" PATH="$stand_in/bin:$PATH" CUDA_COMPUTE_CAP=90
export CARGO_TARGET_DIR="$PWD/target/check-cuda"
exec cargo check --locked --workspace --features cuda "$@"
