# Foreign libraries, each as one target cadre_dep_<name>. launch/setup installs the packages; CONTRIBUTING.md says why
# each is needed. Only the folder that owns a library links its target (the table is in tests/checks/includes.py).

find_package(PkgConfig REQUIRED)

# cadre_dep_pkg(<name> <pkg-config module>...): the first module that exists.
function(cadre_dep_pkg name)
    pkg_search_module(CADRE_${name} REQUIRED IMPORTED_TARGET ${ARGN})
    add_library(cadre_dep_${name} INTERFACE)
    target_link_libraries(cadre_dep_${name} INTERFACE PkgConfig::CADRE_${name})
    message(STATUS "cadre: ${name} ${CADRE_${name}_VERSION} (${CADRE_${name}_MODULE_NAME})")
endfunction()

# The same for a library that CADRE_STATIC takes from its archive, where the distribution ships one.
function(cadre_dep_small name module archive)
    pkg_check_modules(CADRE_${name} REQUIRED IMPORTED_TARGET ${module})
    add_library(cadre_dep_${name} INTERFACE)
    if(CADRE_STATIC)
        find_library(CADRE_${name}_ARCHIVE NAMES ${archive} HINTS ${CADRE_${name}_LIBDIR})
    endif()
    if(CADRE_${name}_ARCHIVE)
        target_link_libraries(cadre_dep_${name} INTERFACE "${CADRE_${name}_ARCHIVE}")
        target_include_directories(cadre_dep_${name} SYSTEM INTERFACE ${CADRE_${name}_INCLUDE_DIRS})
        message(STATUS "cadre: ${name} ${CADRE_${name}_VERSION} (${CADRE_${name}_ARCHIVE})")
    else()
        target_link_libraries(cadre_dep_${name} INTERFACE PkgConfig::CADRE_${name})
        message(STATUS "cadre: ${name} ${CADRE_${name}_VERSION} (shared)")
    endif()
endfunction()

cadre_dep_small(yaml yaml-0.1 libyaml.a)
cadre_dep_small(jansson jansson libjansson.a)
cadre_dep_pkg(hdf5 hdf5-serial hdf5)

find_package(MPI REQUIRED COMPONENTS C)
add_library(cadre_dep_mpi INTERFACE)
target_link_libraries(cadre_dep_mpi INTERFACE MPI::MPI_C)
message(STATUS "cadre: mpi ${MPI_C_VERSION} (${MPIEXEC_EXECUTABLE})")

# OpenBLAS: the pthread flavour, by its own directory.
#
# Cadre calls it from many threads at once (ranks as threads, streams) and wants one thread per call. Debian and Ubuntu
# ship three flavours behind one soname, libopenblas.so.0, and update-alternatives picks one when the program starts:
#   serial   is not safe to call from two threads: it is built without locks around its buffer table. Eight threads
#            doing the same 128 x 128 sgemm got different results (0.3.21; tests/checks/blas_threads.c is that test)
#   openmp   takes openblas_set_num_threads() per calling thread, so that one call at start does not reach the others
#   pthread  is right: locked, and openblas_set_num_threads(1) holds for the process
# So we link from openblas-pthread/ and CMake keeps that directory as run path, which
# the alternatives cannot override.
add_library(cadre_dep_openblas INTERFACE)
find_library(CADRE_OPENBLAS_LIBRARY NAMES openblas PATH_SUFFIXES openblas-pthread NO_CACHE)
if(CADRE_OPENBLAS_LIBRARY MATCHES "/openblas-pthread/")
    find_path(CADRE_OPENBLAS_INCLUDE NAMES cblas.h PATH_SUFFIXES openblas-pthread REQUIRED)
    target_include_directories(cadre_dep_openblas SYSTEM INTERFACE "${CADRE_OPENBLAS_INCLUDE}")
    target_link_libraries(cadre_dep_openblas INTERFACE "${CADRE_OPENBLAS_LIBRARY}")
    message(STATUS "cadre: openblas (${CADRE_OPENBLAS_LIBRARY})")
else()
    # A distribution with one OpenBLAS only; check.blas_threads fails if it is not safe to call from threads.
    pkg_check_modules(CADRE_OPENBLAS REQUIRED IMPORTED_TARGET openblas)
    target_link_libraries(cadre_dep_openblas INTERFACE PkgConfig::CADRE_OPENBLAS)
    message(STATUS "cadre: openblas ${CADRE_OPENBLAS_VERSION} (pkg-config; flavour unknown)")
endif()

# CBC, for the exact packer, by its two libraries alone: what they need comes along, and their pkg-config's -lblas would
# put another BLAS beside ours.
pkg_check_modules(CADRE_CBC REQUIRED cbc)
find_library(CADRE_CBC_SOLVER NAMES CbcSolver HINTS ${CADRE_CBC_LIBRARY_DIRS} REQUIRED)
find_library(CADRE_CBC_CBC NAMES Cbc HINTS ${CADRE_CBC_LIBRARY_DIRS} REQUIRED)
add_library(cadre_dep_cbc INTERFACE)
target_link_libraries(cadre_dep_cbc INTERFACE "${CADRE_CBC_SOLVER}" "${CADRE_CBC_CBC}")
message(STATUS "cadre: cbc ${CADRE_CBC_VERSION}")

if(CADRE_CUDA)
    find_package(CUDAToolkit 13.0 REQUIRED)
    # NCCL ships no CMake package. Without it the transports between GPUs stay out and a job has one GPU per host.
    find_path(CADRE_NCCL_INCLUDE NAMES nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
    find_library(CADRE_NCCL_LIBRARY NAMES nccl HINTS ${CUDAToolkit_LIBRARY_DIR})
    if(CADRE_NCCL_INCLUDE AND CADRE_NCCL_LIBRARY)
        set(CADRE_NCCL ON)
        add_library(cadre_dep_nccl INTERFACE)
        target_include_directories(cadre_dep_nccl SYSTEM INTERFACE "${CADRE_NCCL_INCLUDE}")
        target_link_libraries(cadre_dep_nccl INTERFACE "${CADRE_NCCL_LIBRARY}" CUDA::cudart_static)
        message(STATUS "cadre: nccl (${CADRE_NCCL_LIBRARY})")
    else()
        set(CADRE_NCCL OFF)
        message(STATUS "cadre: nccl not found: transports between GPUs are left out")
    endif()
endif()
