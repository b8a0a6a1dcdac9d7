# cadre_test(NAME <name> SOURCES <file>... [LINK <target>...] [LABELS <label>...] [TIMEOUT <seconds>] [RANKS <n>]
#            [ARGS <argument>...] [ENV <NAME=value>...])
#
# One cmocka program and its ctest test. NAME is what ctest shows, unit.base.arena; the program gets the same name in
# the build tree, below tests/. LINK takes folders' targets (cadre_base); cmocka and the flags come by themselves.
# Without LABELS the label is the first word of NAME. Labels in use: unit ranks property golden gradient cli faults
# check. Exit status 77 means skipped: the program prints why.
# RANKS n runs it under mpirun on n ranks, more than there are cores if need be.
#
# To ctest every test is one process. Its ranks and streams are many threads, which wait for each other: on two cores that
# nothing else used, measured programs kept 0.03 (unit.trainer.overlap) to 1.5 of them busy, those of several ranks no more
# than others. tests/run therefore gives ctest half as many tests again as there are cores.

pkg_check_modules(CADRE_CMOCKA REQUIRED IMPORTED_TARGET cmocka)

# What every test runs under: in build/<preset>/tests, where it may leave files; CADRE_SOURCE_DIR leads to fixtures.
# Open MPI: containers run as root, have fewer cores than ranks, and mostly forbid the cross-memory attach that its
# shared memory transport would use (it then prints an error per message). It would bind the ranks of one and of two to the
# first cores, whichever other test has its ranks there.
set(cadre_test_env
    CADRE_SOURCE_DIR=${PROJECT_SOURCE_DIR}
    OMPI_ALLOW_RUN_AS_ROOT=1
    OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    OMPI_MCA_rmaps_base_oversubscribe=1
    OMPI_MCA_hwloc_base_binding_policy=none
    OMPI_MCA_btl_vader_single_copy_mechanism=none
    OMPI_MCA_mpi_yield_when_idle=1
)
if(CADRE_SANITIZE MATCHES "address")
    # UBSan prints no stack unless told to.
    list(APPEND cadre_test_env UBSAN_OPTIONS=print_stacktrace=1)
elseif(CADRE_SANITIZE MATCHES "thread")
    # Open MPI, HDF5 and OpenBLAS are not instrumented: what they call is not judged, our own accesses are.
    list(APPEND cadre_test_env
        TSAN_OPTIONS=ignore_noninstrumented_modules=1:halt_on_error=1:second_deadlock_stack=1:suppressions=${PROJECT_SOURCE_DIR}/tests/support/tsan.supp
    )
endif()

function(cadre_test)
    cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME;TIMEOUT;RANKS" "SOURCES;LINK;LABELS;ARGS;ENV")
    if(arg_UNPARSED_ARGUMENTS OR NOT arg_NAME OR NOT arg_SOURCES)
        message(FATAL_ERROR "cadre_test(${arg_NAME}): needs NAME and SOURCES; unknown: ${arg_UNPARSED_ARGUMENTS}")
    endif()
    add_executable(${arg_NAME} ${arg_SOURCES})
    target_link_libraries(${arg_NAME} PRIVATE cadre_flags ${arg_LINK} PkgConfig::CADRE_CMOCKA)
    set_target_properties(${arg_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/tests")

    set(command $<TARGET_FILE:${arg_NAME}> ${arg_ARGS})
    set(ranks 1)
    if(arg_RANKS)
        set(ranks ${arg_RANKS})
        set(command "${MPIEXEC_EXECUTABLE}" --oversubscribe ${MPIEXEC_NUMPROC_FLAG} ${ranks} ${command})
        # Open MPI keeps memory until exit on purpose; our own counters in base/memory.h see to our leaks.
        list(APPEND arg_ENV ASAN_OPTIONS=detect_leaks=0)
    endif()
    cadre_test_command(
        NAME ${arg_NAME} COMMAND ${command} LABELS ${arg_LABELS} TIMEOUT ${arg_TIMEOUT} RANKS ${ranks} ENV ${arg_ENV}
    )
endfunction()

# cadre_test_command(NAME <name> COMMAND <word>... [LABELS ...] [TIMEOUT ...] [RANKS ...] [ENV ...]): the same for a
# test that is not a cmocka program: a script, or the product itself, which starts its ranks by itself.
function(cadre_test_command)
    cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME;TIMEOUT;RANKS" "COMMAND;LABELS;ENV")
    if(NOT arg_LABELS)
        string(REGEX REPLACE "\\..*" "" arg_LABELS "${arg_NAME}")
    endif()
    if(NOT arg_TIMEOUT AND arg_RANKS GREATER 1)
        # Five ranks that wait for each other take 4 s on two idle cores and 57 s beside two compilers.
        set(arg_TIMEOUT 240)
    elseif(NOT arg_TIMEOUT)
        set(arg_TIMEOUT 120) # the slowest takes 10 s alone
    endif()
    if(CADRE_SANITIZE)
        # Sanitized code is 2 to 15 times slower, and the machine may have two cores for four ranks.
        math(EXPR arg_TIMEOUT "${arg_TIMEOUT} * 5")
    endif()
    add_test(NAME ${arg_NAME} COMMAND ${arg_COMMAND} WORKING_DIRECTORY "${PROJECT_BINARY_DIR}/tests")
    set_tests_properties(${arg_NAME} PROPERTIES
        LABELS "${arg_LABELS}"
        TIMEOUT ${arg_TIMEOUT}
        SKIP_RETURN_CODE 77
        ENVIRONMENT "${cadre_test_env};${arg_ENV}"
    )
endfunction()
