"""The mechanisms about compiled code, the machine and its GPU, as the engine asks them."""

from doctor.diagnosis.builds import find_build_failure
from doctor.diagnosis.cuda_architectures import find_architecture
from doctor.diagnosis.cuda_builds import find_cuda_builds
from doctor.diagnosis.cuda_versions import find_cuda_versions
from doctor.diagnosis.installed_binaries import find_installed_binaries
from doctor.diagnosis.mechanism import Mechanism
from doctor.diagnosis.not_a_number import find_not_a_number
from doctor.diagnosis.numpy_abi import find_numpy_abi
from doctor.diagnosis.old_glibc import find_old_glibc
from doctor.diagnosis.old_sources import find_old_sources
from doctor.diagnosis.out_of_memory import find_gpu_memory
from doctor.diagnosis.serving_memory import find_serving_memory
from doctor.diagnosis.shared_libraries import find_shared_library
from doctor.diagnosis.torch_partners import find_missing_operators
from doctor.diagnosis.undefined_symbols import find_undefined_symbol
from doctor.diagnosis.wheel_names import find_wrong_wheel
from doctor.diagnosis.xformers_build import find_xformers_build

MACHINE_FAULTS: tuple[Mechanism, ...] = (
    find_undefined_symbol,
    find_xformers_build,
    find_numpy_abi,
    find_shared_library,
    find_old_glibc,
    find_missing_operators,
    find_cuda_builds,
    find_cuda_versions,
    find_architecture,
    find_gpu_memory,
    find_serving_memory,
    find_build_failure,
    find_old_sources,
    find_wrong_wheel,
    find_not_a_number,
    find_installed_binaries,
)
