# Language level, warnings and floating point, the same for every C target. All of it hangs on the interface target
# cadre_flags, which cadre_library and cadre_test link privately.

set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
# -fPIE, so that `nm` shows const tables of pointers in .data.rel.ro, as on distributions whose compiler defaults to it.
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

# No -DNDEBUG in any build type: assert() guards programmer errors and stays (tests/checks rely on it too).
set(CMAKE_C_FLAGS_RELEASE "-O3")
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O3 -g")
set(CMAKE_C_FLAGS_DEBUG "-O1 -g")
set(CMAKE_CUDA_FLAGS_RELEASE "-O3")
set(CMAKE_CUDA_FLAGS_RELWITHDEBINFO "-O3 -lineinfo")

# Installed programs find OpenBLAS and HDF5 where they were linked (see CadreDependencies.cmake for why that matters).
set(CMAKE_INSTALL_RPATH_USE_LINK_PATH ON)

add_library(cadre_flags INTERFACE)
target_include_directories(cadre_flags INTERFACE "${PROJECT_SOURCE_DIR}")

# Linux only. _GNU_SOURCE and not _POSIX_C_SOURCE because g++, nvcc's host compiler, always defines it: a header must
# not mean one thing to C and another to CUDA. Beware: strerror_r is GNU's here (it returns the text).
target_compile_definitions(cadre_flags INTERFACE $<$<COMPILE_LANGUAGE:C>:_GNU_SOURCE>)

# -ffp-contract=off: gcc otherwise fuses a*b+c where the target has FMA, so that the same source would give other bits
# in another inlining context, and the placement tests compare bits. Never -ffast-math, for the same reason.
set(cadre_c_options
    -ffp-contract=off
    -fno-fast-math
    -fno-omit-frame-pointer
    -Wall
    -Wextra
    -Wpedantic
    -Wshadow
    -Wconversion
    -Wstrict-prototypes
    -Wmissing-prototypes
    -Wdouble-promotion
    -Wvla
    -Wcast-qual
    -Wwrite-strings
)
# Warnings stop the build with the compilers they were cleaned with; a newer one may know more, and its user wants to
# build, not to clean.
if(CADRE_WERROR AND NOT ((CMAKE_C_COMPILER_ID STREQUAL "GNU" AND CMAKE_C_COMPILER_VERSION VERSION_LESS 14)
                         OR (CMAKE_C_COMPILER_ID STREQUAL "Clang" AND CMAKE_C_COMPILER_VERSION VERSION_LESS 15)))
    message(STATUS "cadre: warnings are not errors with ${CMAKE_C_COMPILER_ID} ${CMAKE_C_COMPILER_VERSION}")
    set(CADRE_WERROR OFF)
endif()
if(CADRE_WERROR)
    list(APPEND cadre_c_options -Werror)
endif()
target_compile_options(cadre_flags INTERFACE "$<$<COMPILE_LANGUAGE:C>:${cadre_c_options}>")

if(CADRE_CUDA)
    set(cadre_cuda_options --Wno-deprecated-gpu-targets -Xcompiler=-Wall,-Wextra,-Wshadow,-fno-omit-frame-pointer)
    if(CADRE_WERROR)
        list(APPEND cadre_cuda_options --Werror=all-warnings)
    endif()
    target_compile_options(cadre_flags INTERFACE "$<$<COMPILE_LANGUAGE:CUDA>:${cadre_cuda_options}>")
endif()

if(CADRE_SANITIZE)
    # Any finding ends the program with a non-zero status: a report that only scrolls by fails no test.
    target_compile_options(cadre_flags INTERFACE -fsanitize=${CADRE_SANITIZE} -fno-sanitize-recover=all)
    target_link_options(cadre_flags INTERFACE -fsanitize=${CADRE_SANITIZE})
endif()

# The threads of POSIX: base uses them in every build.
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
